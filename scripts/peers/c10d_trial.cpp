// Trial: can libtorch's own c10d (TCPStore, ProcessGroupGloo) stand in for wavemill's rings? Prints what each rank met.
//
// The wheel has c10d's headers but not gloo's, which they include: empty files stand in, and the few declarations below.
// From the repository's root, with this file beside .libtorch:
//   T=$PWD/.libtorch/torch; S=$(mktemp -d); mkdir -p $S/gloo/common $S/gloo/rendezvous $S/gloo/transport
//   touch $S/gloo/{algorithm,context,common/error,rendezvous/store,transport/device}.h
//   g++ -std=c++17 -O1 -w -DUSE_DISTRIBUTED -DUSE_C10D_GLOO -I$S -I$T/include \
//       -I$T/include/torch/csrc/api/include c10d_trial.cpp -o c10d_trial -L$T/lib -ltorch_cpu -lc10 -Wl,-rpath,$T/lib
//   OMP_NUM_THREADS=1 ./c10d_trial [sums] [death] [hang] [strangers] [words] 2>c10d_trial.log
// Without an argument all of them, in some four minutes. c10d's own logs and traces go to stderr.
#include <chrono>
#include <string>
#include <vector>

namespace gloo {
struct Context { void setTimeout(std::chrono::milliseconds); };
namespace transport { struct Device; struct UnboundBuffer { virtual ~UnboundBuffer(); }; }
namespace rendezvous { struct Store {
    virtual ~Store();
    virtual void set(const std::string&, const std::vector<char>&) = 0;
    virtual std::vector<char> get(const std::string&) = 0;
    virtual void wait(const std::vector<std::string>&) = 0;
    virtual void wait(const std::vector<std::string>&, const std::chrono::milliseconds&) = 0;
}; }
}
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <arpa/inet.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <map>
#include <random>
#include <thread>

using Words = std::vector<std::string>;
static double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
static void nap(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

static c10::intrusive_ptr<c10d::TCPStore> store_at(int port, bool server, int clients, std::chrono::milliseconds patience) {
    c10d::TCPStoreOptions options;
    options.port = port, options.isServer = server, options.numWorkers = clients, options.timeout = patience;
    return c10::make_intrusive<c10d::TCPStore>("127.0.0.1", options);
}

struct Rank {
    int rank, world;
    c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;

    Rank(int rank, int world, int port, std::chrono::milliseconds patience) : rank(rank), world(world) {
        auto options = c10d::ProcessGroupGloo::Options::create(patience);
        options->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1"));
        gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store_at(port, rank == 0, world, patience), rank, world, options);
    }
    at::Tensor sum(at::Tensor tensor) {
        std::vector<at::Tensor> tensors{tensor};
        gloo->allreduce(tensors)->wait();
        return tensor;
    }
};

// The same in every run.
static at::Tensor values(int rank, int64_t length, at::ScalarType kind) {
    std::mt19937_64 random(rank);
    std::normal_distribution<double> normal;
    auto tensor = at::empty({length}, at::kDouble);
    std::generate_n(tensor.data_ptr<double>(), length, [&] { return normal(random); });
    return tensor.to(kind);
}

// Of rank `start`, then the next ones upwards (step 1) or downwards (-1): one order of a ring.
static at::Tensor around(const std::vector<at::Tensor>& parts, int start, int step) {
    int world = parts.size();
    auto total = parts[start].clone();
    for (int n = 1; n < world; ++n) total += parts[(start + n * step + n * world) % world];
    return total;
}

static void sums(Rank& me) {
    for (auto kind : {at::kFloat, at::kDouble}) for (int64_t length : {0, 1, 3, 1000, 700001}) {
        std::vector<at::Tensor> parts;
        for (int rank = 0; rank < me.world; ++rank) parts.push_back(values(rank, length, kind));
        auto total = me.sum(parts[me.rank].clone());
        // wavemill's ring: segment i of as many as there are ranks begins at rank i and goes up.
        auto ours = at::empty_like(total), any = at::zeros_like(total, at::kBool);
        for (int start = 0; start < me.world; ++start) {
            int64_t from = length * start / me.world, to = length * (start + 1) / me.world;
            ours.slice(0, from, to).copy_(around(parts, start, 1).slice(0, from, to));
            for (int step : {1, -1}) any |= total == around(parts, start, step);
        }
        std::string bytes(static_cast<char*>(total.data_ptr()), total.nbytes());
        printf("  %s %ld: hash %016zx, as our ring %ld, in some ring's order %ld\n", toString(kind), length,
               std::hash<std::string>()(bytes), (total == ours).sum().item<int64_t>(), any.sum().item<int64_t>());
    }
}

// One that knows the port and nothing else.
static void stranger(int port) {
    int link = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}};
    connect(link, (sockaddr*)&address, sizeof address);
    const char long_key[] = "\0\xce\xf7\x85\x3c\1\0\0\0\0\0\1\0";  // a valid greeting, then a key of 2^40 bytes
    char answer;
    printf("  a key of 2^40 bytes: %s\n", write(link, long_key, sizeof long_key) > 0 && read(link, &answer, 1) == 0 ? "refused" : "taken");
    auto store = store_at(port, false, 0, std::chrono::seconds(5));
    for (auto& key : store->listKeys()) printf("  a stranger deletes key %s: %s\n", key.c_str(), store->deleteKey(key) ? "gone" : "kept");
}

static int rank_main(char** args) {
    int rank = atoi(args[1]), world = atoi(args[2]), port = atoi(args[3]);
    std::string task = args[4];
    try {
        if (task == "stranger") return stranger(port), 0;
        Rank me(rank, world, port, std::chrono::milliseconds(int(atof(args[5]) * 1000)));
        if (task == "sums") sums(me);
        while (task == "loop") me.sum(at::ones({1000000}));
        if (task == "wait" && rank == 1) nap(600);
        if (task == "wait") me.gloo->barrier()->wait();
        if (task == "slow" && rank == 1) nap(12);
        auto own = task == "lengths" ? at::ones({5 + rank}) : task == "kinds" && rank ? at::ones({1}, at::kDouble) : at::ones({2});
        if (task != "sums") printf("  rank %d: the sum is %g\n", rank, me.sum(own)[0].item<double>());
        return 0;
    } catch (const std::exception& error) {
        std::string words = error.what();
        printf("  rank %d: %s\n", rank, words.substr(0, words.find("\nException raised")).c_str());
        _exit(1);
    }
}

static pid_t start(Words args) {
    std::vector<char*> list{(char*)"c10d_trial"};
    for (auto& arg : args) list.push_back(arg.data());
    list.push_back(nullptr);
    pid_t child = 0;
    posix_spawn(&child, "/proc/self/exe", nullptr, nullptr, list.data(), environ);
    return child;
}

struct Act { int victim = -1, signal = 0; bool stranger = false; std::string late; };

// Starts `ranks`, acts after three seconds, and says when each of the others ends; after `limit` seconds it ends them.
static void trial(std::string name, std::string task, Words ranks, int world, double timeout, Act act = {}, double limit = 20) {
    static int port = 20000 + getpid() % 10000;
    printf("\n%s\n", name.c_str());
    std::map<pid_t, std::string> running;
    auto add = [&](auto rank) { return running[start({rank, std::to_string(world), std::to_string(port), task, std::to_string(timeout)})] = rank; };
    for (auto& rank : ranks) add(rank);
    if (act.signal || act.stranger) nap(3);
    for (auto& [process, rank] : running) if (rank == std::to_string(act.victim)) kill(process, act.signal);
    if (act.stranger) waitpid(start({"0", "0", std::to_string(port), "stranger", "5"}), nullptr, 0);
    if (!act.late.empty()) add(act.late);
    double since = now();
    for (int status; running.size() > (act.signal == SIGSTOP) && now() - since < limit; nap(0.01)) for (auto at = running.begin(); at != running.end();) {
        if (waitpid(at->first, &status, WNOHANG) == 0) { ++at; continue; }
        printf("  rank %s ends after %.2f s%s\n", at->second.c_str(), now() - since,
               WIFSIGNALED(status) ? (std::string(" by a signal: ") + strsignal(WTERMSIG(status))).c_str() : "");
        at = running.erase(at);
    }
    for (auto& [process, rank] : running) printf("  rank %s IS STILL THERE after %.0f s\n", rank.c_str(), now() - since), kill(process, SIGKILL), waitpid(process, nullptr, 0);
    ++port;
}

int main(int count, char** args) {
    setvbuf(stdout, nullptr, _IOLBF, 0);
    if (count > 5 && isdigit(*args[1])) return rank_main(args);
    auto asked = [&](std::string name) { return count == 1 || std::count(args + 1, args + count, name); };
    Words four{"0", "1", "2", "3"}, three{"0", "1", "2"}, two{"0", "1"};
    if (asked("sums")) for (int world : {1, 2, 3, 4}) for (int run : {1, 2})
        trial("sums, ranks: " + std::to_string(world), "sums", Words(four.begin(), four.begin() + world), world, 60);
    if (asked("death")) {
        trial("kill -9 rank 2 in sums", "loop", three, 3, 1800, {2, SIGKILL});
        trial("kill -9 rank 0 in sums", "loop", three, 3, 1800, {0, SIGKILL});
        trial("kill -9 rank 1, for which the others wait", "wait", three, 3, 1800, {1, SIGKILL});
        trial("kill -9 rank 2, while the others wait for rank 1, which computes", "wait", three, 3, 1800, {2, SIGKILL});
        trial("kill -9 rank 0 before rank 2 has come", "loop", two, 3, 1800, {0, SIGKILL});
    }
    if (asked("hang")) {
        trial("SIGSTOP rank 1 in sums, c10d's default of 1800 s", "loop", three, 3, 1800, {1, SIGSTOP}, 40);
        trial("SIGSTOP rank 1 in sums, timeout 8 s", "loop", three, 3, 8, {1, SIGSTOP});
        trial("rank 1 computes for 12 s, timeout 8 s", "slow", three, 3, 8);
    }
    if (asked("strangers")) {
        trial("a stranger at the store while ranks sum", "loop", three, 3, 60, {-1, 0, true}, 5);
        trial("a stranger at the store before rank 2 comes", "once", two, 3, 10, {-1, 0, true, "2"});
        trial("rank 0 and a rank 1 of another job", "once", two, 2, 10);  // nothing that they say names a job
    }
    if (asked("words")) {
        trial("rank 2 of 4 does not come", "once", {"0", "1", "3"}, 4, 5);
        trial("two processes of rank 1, no rank 2", "once", {"0", "1", "1"}, 3, 5);
        trial("no rank 0", "once", {"1"}, 2, 3);
        trial("two of rank 0: the port is taken", "once", {"0", "0"}, 2, 3);
        trial("a sum of 5 f32 here, of 6 there", "lengths", two, 2, 5);
        trial("a sum of 2 f32 here, of 1 f64 there", "kinds", two, 2, 5);
    }
}
