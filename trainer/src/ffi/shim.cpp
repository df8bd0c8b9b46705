// What tch does not offer: process-wide switches of ATen, and one differentiable sum over ranks.
// Every function catches what ATen throws; `message` then holds its first line.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <malloc.h>
#include <signal.h>
#include <sys/auxv.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace {

// Sums a contiguous tensor over all ranks in place; 0 on success. `group` is Rust's.
using SumInPlace = int (*)(const void* group, at::Tensor* tensor);

struct SumOverRanks : public torch::autograd::Function<SumOverRanks> {
    static at::Tensor run(const at::Tensor& tensor, int64_t sum, int64_t group) {
        at::Tensor total = tensor.detach().contiguous().clone();
        if (reinterpret_cast<SumInPlace>(sum)(reinterpret_cast<const void*>(group), &total) != 0) {
            throw std::runtime_error("the sum over ranks failed");
        }
        return total;
    }

    static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& tensor, int64_t sum,
                              int64_t group) {
        context->saved_data["sum"] = sum;
        context->saved_data["group"] = group;
        return run(tensor, sum, group);
    }

    // d(Σ over ranks of loss) / d(own part): every rank's gradient counts.
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list grads) {
        int64_t sum = context->saved_data["sum"].toInt();
        int64_t group = context->saved_data["group"].toInt();
        return {run(grads[0], sum, group), at::Tensor(), at::Tensor()};
    }
};

template <typename Body>
int guarded(char* message, size_t size, Body body) {
    try {
        body();
        return 0;
    } catch (const std::exception& error) {
        std::snprintf(message, size, "%s", error.what());
        return 1;
    }
}

// Threads of OpenMP that wait for the others spin by default, for milliseconds. Where other programs want the cores too,
// they spin away the time of the one that they wait for. With 300 rounds, some ten microseconds, a recurrent model is as
// fast as by default where the cores are free (without any it takes a third longer), and several times faster where they
// are not: docs/trainer.md has the figures. libgomp takes how to wait from the environment alone, when it is
// loaded, which is before main and before any constructor of ours. So the program starts itself once more with the
// variable set, at the earliest moment that there is: before libtorch's own initialisers, which take a quarter of a second.
// Ranks and other children inherit it. What a user has set is left alone.
constexpr const char* WAIT = "GOMP_SPINCOUNT=300";
constexpr const char* ASKED[] = {"OMP_WAIT_POLICY=", "GOMP_SPINCOUNT=", "KMP_BLOCKTIME="};

void spin_shortly(int, char** args, char** variables) {
    size_t count = 0;
    for (; variables[count] != nullptr; ++count) {
        for (const char* asked : ASKED) {
            if (std::strncmp(variables[count], asked, std::strlen(asked)) == 0) return;
        }
    }

    // A program that was started through the loader (`ld.so PROGRAM`) does not know its own name.
    auto* program = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
    if (program == nullptr || getauxval(AT_BASE) == 0) return;

    // The C library is not ready for malloc here. The system keeps arguments and environment below a quarter of the
    // stack's limit, so that one more list of pointers has room on it.
    auto** with = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
    std::memcpy(with, variables, count * sizeof(char*));
    with[count] = const_cast<char*>(WAIT);
    with[count + 1] = nullptr;
    // Where it fails the program goes on as it is: slower on a busy machine.
    execve(program, args, with);
}

__attribute__((section(".preinit_array"), used)) void (*const before_all)(int, char**, char**) = spin_shortly;

// cuBLAS sums in the same order each time only with a workspace of a fixed size, and libtorch refuses every product of
// matrices on a GPU without it where algorithms must be deterministic. Both read the environment. Set before main, when no
// other thread is there; what a user has set is left alone.
__attribute__((constructor)) void choose_workspaces() { setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0); }

}  // namespace

extern "C" {

int wavemill_set_deterministic(bool on, char* message, size_t size) {
    return guarded(message, size, [&] {
        at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
        at::globalContext().setDeterministicCuDNN(on);
        at::globalContext().setBenchmarkCuDNN(!on);
    });
}

int wavemill_set_tf32(bool on, char* message, size_t size) {
    return guarded(message, size, [&] {
        at::globalContext().setAllowTF32CuBLAS(on);
        at::globalContext().setAllowTF32CuDNN(on);
    });
}

// `own_loops`: while it is on, libtorch computes with its own loops and not with oneDNN.
int wavemill_set_autocast_bf16(bool cuda, bool own_loops, bool on, char* message, size_t size) {
    return guarded(message, size, [&] {
        if (own_loops) at::globalContext().setUserEnabledMkldnn(!on);
        auto device = cuda ? at::kCUDA : at::kCPU;
        at::autocast::set_autocast_dtype(device, at::kBFloat16);
        at::autocast::set_autocast_enabled(device, on);
        if (!on) at::autocast::clear_cache();
    });
}

// `out` receives bytes of no particular content, page-locked and of libtorch's own pool of such memory: what is freed is
// handed out again only once the copies from it are done.
int wavemill_pinned(int64_t bytes, at::Tensor** out, char* message, size_t size) {
    return guarded(message, size, [&] {
        *out = new at::Tensor(at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true)));
    });
}

// `out` receives `host` on the GPU of this number. Comes back before it is copied: by way of page-locked memory, from
// which what is queued next on the GPU waits for the copy, and nothing else does.
int wavemill_send(const at::Tensor* host, int gpu, at::Tensor** out, char* message, size_t size) {
    return guarded(message, size, [&] {
        auto device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(gpu));
        *out = new at::Tensor(host->pin_memory().to(device, /*non_blocking=*/true));
    });
}

// A step frees and takes the same large blocks again: glibc would give them back to the system each time, and every page
// would be cleared anew.
void wavemill_keep_memory() {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
}

// Keeps SIGINT and SIGTERM away from the calling thread and those that it starts from now on.
void wavemill_block_stop_signals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

// `out` receives a new tensor that the caller owns.
int wavemill_sum_over_ranks(const at::Tensor* tensor, void* sum, const void* group, at::Tensor** out, char* message,
                            size_t size) {
    return guarded(message, size, [&] {
        *out = new at::Tensor(
            SumOverRanks::apply(*tensor, reinterpret_cast<int64_t>(sum), reinterpret_cast<int64_t>(group)));
    });
}

}  // extern "C"
