// Features that tch lacks: process-wide settings of ATen, and a differentiable sum over ranks.
// Every function catches ATen's exceptions and stores the text in `message`.

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

// Sums a contiguous tensor over all ranks in place; returns 0 on success. `group` belongs to Rust.
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

    // d(Σ over ranks of loss) / d(own part): the gradients of all ranks are summed.
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

// By default, waiting OpenMP threads spin for milliseconds. If other programs need the cores as well, the spinning
// takes time from the thread that the others wait for. With 3,000 rounds, about a tenth of a millisecond, models are as
// fast as by default on an idle machine; docs/decisions/training.md contains the figures. libgomp
// reads this setting from the environment only, when it is loaded, which is before main and before any of our
// constructors. Therefore the program restarts itself with the variable set, at the earliest possible moment: before
// libtorch's own initialisers, which take a quarter of a second. Ranks and other child processes inherit the variable.
// Values set by the user are kept.
constexpr const char* WAIT = "GOMP_SPINCOUNT=3000";
constexpr const char* ASKED[] = {"OMP_WAIT_POLICY=", "GOMP_SPINCOUNT=", "KMP_BLOCKTIME="};

void spin_shortly(int, char** args, char** variables) {
    size_t count = 0;
    for (; variables[count] != nullptr; ++count) {
        for (const char* asked : ASKED) {
            if (std::strncmp(variables[count], asked, std::strlen(asked)) == 0) return;
        }
    }

    // A program that was started through the loader (`ld.so PROGRAM`) does not know its own path.
    auto* program = reinterpret_cast<const char*>(getauxval(AT_EXECFN));
    if (program == nullptr || getauxval(AT_BASE) == 0) return;

    // malloc cannot be used yet, because the C library is not initialised. The system limits arguments and environment
    // to a quarter of the stack size, so the stack has room for another list of pointers.
    auto** with = static_cast<char**>(__builtin_alloca((count + 2) * sizeof(char*)));
    std::memcpy(with, variables, count * sizeof(char*));
    with[count] = const_cast<char*>(WAIT);
    with[count + 1] = nullptr;
    // If execve fails, the program continues with the default: slower on a busy machine.
    execve(program, args, with);
}

__attribute__((section(".preinit_array"), used)) void (*const before_all)(int, char**, char**) = spin_shortly;

// cuBLAS sums in a reproducible order only with a workspace of a fixed size, and with deterministic algorithms libtorch
// rejects every matrix product on a GPU without it. Both read the environment. Set before main, while there is only one
// thread; a value set by the user is kept.
__attribute__((constructor)) void choose_workspaces() { setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0); }

}  // namespace

extern "C" {

int wavemill_set_deterministic(bool on, char* message, size_t size) {
    return guarded(message, size, [&] {
        at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
        at::globalContext().setDeterministicCuDNN(on);
        // By default, libtorch then also fills all memory of new tensors, for programs that read it before they write it.
        at::globalContext().setDeterministicFillUninitializedMemory(false);
        at::globalContext().setBenchmarkCuDNN(!on);
    });
}

int wavemill_set_tf32(bool on, char* message, size_t size) {
    return guarded(message, size, [&] {
        at::globalContext().setAllowTF32CuBLAS(on);
        at::globalContext().setAllowTF32CuDNN(on);
    });
}

// `own_loops`: while autocast is on, libtorch uses its own kernels instead of oneDNN.
int wavemill_set_autocast_bf16(bool cuda, bool own_loops, bool on, char* message, size_t size) {
    return guarded(message, size, [&] {
        if (own_loops) at::globalContext().setUserEnabledMkldnn(!on);
        auto device = cuda ? at::kCUDA : at::kCPU;
        at::autocast::set_autocast_dtype(device, at::kBFloat16);
        at::autocast::set_autocast_enabled(device, on);
        if (!on) at::autocast::clear_cache();
    });
}

// Sets `out` to uninitialised page-locked bytes from libtorch's pool of such memory. The pool reuses a freed block only
// after the copies from it have finished.
int wavemill_pinned(int64_t bytes, at::Tensor** out, char* message, size_t size) {
    return guarded(message, size, [&] {
        *out = new at::Tensor(at::empty({bytes}, at::TensorOptions().dtype(at::kByte).pinned_memory(true)));
    });
}

// Sets `out` to a copy of `host` on the GPU with this number. Returns before the copy is done: it goes through
// page-locked memory, and only later work on the GPU waits for it.
int wavemill_send(const at::Tensor* host, int gpu, at::Tensor** out, char* message, size_t size) {
    return guarded(message, size, [&] {
        auto device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(gpu));
        *out = new at::Tensor(host->pin_memory().to(device, /*non_blocking=*/true));
    });
}

// A step frees and allocates the same large blocks again and again: glibc would return them to the system each time,
// which would have to clear every page again.
void wavemill_keep_memory() {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
}

// Blocks SIGINT and SIGTERM in the calling thread and in the threads that it starts from now on.
void wavemill_block_stop_signals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

// Sets `out` to a new tensor that the caller owns.
int wavemill_sum_over_ranks(const at::Tensor* tensor, void* sum, const void* group, at::Tensor** out, char* message,
                            size_t size) {
    return guarded(message, size, [&] {
        *out = new at::Tensor(
            SumOverRanks::apply(*tensor, reinterpret_cast<int64_t>(sum), reinterpret_cast<int64_t>(group)));
    });
}

}  // extern "C"
