// Launches: blocks run one at a time; their threads are fibres that run until they wait for each other. Include after
// fibre.h.

namespace emulated {

constexpr unsigned WARP = 32;
constexpr unsigned THREADS_MAX = 1024;
constexpr unsigned GRID_Y_MAX = 65535;
// Largest dynamic shared memory of a block on any architecture (compute capability 9.0).
constexpr unsigned SHARED_MAX = 227 * 1024;
// Size of the zones on both sides of shared memory. A write to a zone reveals a wrong index.
constexpr unsigned RED_ZONE = 1024;
constexpr unsigned char RED = 0xa5;
// Initial bytes of shared memory: NaN as float and as double.
constexpr unsigned char FRESH = 0xff;

enum Order : unsigned { ASCENDING, DESCENDING, RANDOM };

// Same layout as in emulated/mod.rs.
struct Launch {
    unsigned long long seed;
    unsigned grid_x, grid_y, threads, shared_bytes, order, reserved;
};

struct Index {
    unsigned x, y, z;
};

enum State : unsigned char { READY, BARRIER, SHUFFLE, ENDED };

struct Thread {
    Index index;
    Fibre fibre;
    State state;
    unsigned char turn;          // index of the `value` that the next shuffle uses
    unsigned line;               // source line at which the thread waits
    const char *file;
    unsigned long long value[2]; // values shown to other lanes; two, because a lane may be one shuffle ahead
};

// A launch on this host thread, and its current block.
struct Block {
    Index at, threads, grid;
    Thread *all;
    void (*kernel)(const void *params);
    const void *params;
    unsigned char *shared; // starts after the first red zone
    unsigned shared_bytes, order;
    unsigned long long random;
    unsigned short turns[THREADS_MAX];
    unsigned next_turn;
    bool one_at_a_time; // return to the loop of the block after each thread
    Fibre machine;
    const char *name;
    char *report;
    size_t report_bytes;
};

static thread_local Block *block;
static thread_local Thread *self;

inline unsigned long long draw(unsigned long long &state) { // splitmix64
    unsigned long long z = (state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

template <typename Integer> void arrange(Integer *order, unsigned n, unsigned kind, unsigned long long &random) {
    for (unsigned i = 0; i < n; ++i) {
        order[i] = (Integer)(kind == DESCENDING ? n - 1 - i : i);
    }
    for (unsigned i = n; kind == RANDOM && i > 1; --i) {
        unsigned other = (unsigned)(((draw(random) >> 32) * i) >> 32);
        Integer swap = order[i - 1];
        order[i - 1] = order[other];
        order[other] = swap;
    }
}

// Reports a failure and returns false. Only the first failure of a launch is reported.
__attribute__((format(printf, 1, 2))) inline bool fail(const char *format, ...) {
    if (block->report[0]) {
        return false;
    }
    Block &b = *block;
    int used = snprintf(b.report, b.report_bytes, "kernel %s, block (%u, %u), ", b.name, b.at.x, b.at.y);
    va_list values;
    va_start(values, format);
    vsnprintf(b.report + used, b.report_bytes - (size_t)used, format, values);
    va_end(values);
    return false;
}

// ---- Threads

inline Thread *next_ready() {
    Block &b = *block;
    while (b.next_turn < b.threads.x) {
        Thread *thread = &b.all[b.turns[b.next_turn++]];
        if (thread->state == READY) {
            return thread;
        }
    }
    return nullptr;
}

// Switches to the next ready thread, or back to the loop of the block.
inline void yield(bool ended) {
    Thread *from = self, *to = block->one_at_a_time ? nullptr : next_ready();
    if (to) {
        self = to;
    }
    switch_fibre(from->fibre, to ? to->fibre : block->machine, ended);
}

static void fibre_main() {
    arrive(block->machine);
    block->kernel(block->params);
    self->state = ENDED;
    leave_frames(); // this frame never returns, and its stack is reused
    yield(true);
    abort(); // no fibre switches back to a thread that has ended
}

__attribute__((noinline)) inline void wait(State state, const char *file, unsigned line) {
    self->state = state;
    self->file = file;
    self->line = line;
    yield(false);
}

inline void barrier(const char *file, unsigned line) { wait(BARRIER, file, line); }

// Shows `value` to the warp and returns the value that lane `from` shows.
template <typename T> T exchange(unsigned mask, T value, unsigned from, const char *file, unsigned line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    Thread *thread = self;
    unsigned turn = thread->turn;
    thread->turn ^= 1;
    if (mask != 0xffffffffu) {
        fail("thread %u: shuffle with mask %08x at %s:%u: only whole warps shuffle", thread->index.x, mask, file, line);
    }
    memcpy(&thread->value[turn], &value, sizeof(T));
    wait(SHUFFLE, file, line);
    T got;
    memcpy(&got, &block->all[thread->index.x / WARP * WARP + from].value[turn], sizeof(T));
    return got;
}

inline unsigned lane() { return self->index.x % WARP; }
// As in CUDA, a source lane outside of the warp returns the lane's own value.
inline unsigned lane_xor(unsigned mask) { return (lane() ^ mask) < WARP ? lane() ^ mask : lane(); }
inline unsigned lane_down(unsigned delta) { return delta < WARP - lane() ? lane() + delta : lane(); }

// ---- A block

inline const char *describe(const Thread &thread, char (&text)[160]) {
    if (thread.state == ENDED) {
        snprintf(text, sizeof text, "thread %u has ended", thread.index.x);
    } else {
        const char *kind = thread.state == BARRIER ? "the barrier" : "the shuffle";
        snprintf(text, sizeof text, "thread %u waits at %s at %s:%u", thread.index.x, kind, thread.file, thread.line);
    }
    return text;
}

inline bool together(const Thread &a, const Thread &b) {
    bool same_place = a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0);
    return a.state == b.state && (a.state == ENDED || same_place);
}

// Reports whether `n` threads from `first` wait at the same place. If not, the launch fails.
inline bool all_together(const Thread *first, unsigned n, const char *what) {
    for (unsigned i = 1; i < n; ++i) {
        if (!together(first[0], first[i])) {
            char a[160], b[160];
            return fail("%s: %s while %s", what, describe(first[0], a), describe(first[i], b));
        }
    }
    return true;
}

// Makes threads ready when all threads that they wait for have arrived. Returns false if all threads have ended, or if
// the launch has failed because threads wait for different places.
inline bool release() {
    Thread *all = block->all;
    unsigned n = block->threads.x;
    bool shuffled = false;
    for (unsigned first = 0; first < n; first += WARP) {
        bool here = false;
        for (unsigned i = 0; i < WARP; ++i) {
            here |= all[first + i].state == SHUFFLE;
        }
        if (here && !all_together(all + first, WARP, "divergent shuffle")) {
            return false;
        }
        for (unsigned i = 0; here && i < WARP; ++i) {
            all[first + i].state = READY;
        }
        shuffled |= here;
    }
    if (shuffled) {
        return true;
    }
    if (!all_together(all, n, "divergent barrier")) {
        return false;
    }
    if (all[0].state == ENDED) {
        return false;
    }
    for (unsigned i = 0; i < n; ++i) {
        all[i].state = READY;
    }
    return true;
}

// Returns the offset of the first damaged byte of the red zones from the start of shared memory, or 0 if there is none.
inline long damage() {
    if (SANITIZED) {
        return 0; // the sanitizer reports it at the access
    }
    const unsigned char *before = block->shared - RED_ZONE, *behind = block->shared + block->shared_bytes;
    unsigned char red[RED_ZONE];
    memset(red, RED, RED_ZONE);
    if (memcmp(before, red, RED_ZONE) != 0) {
        for (long i = -1;; --i) {
            if (block->shared[i] != RED) {
                return i;
            }
        }
    }
    if (memcmp(behind, red, RED_ZONE) != 0) {
        for (long i = 0;; ++i) {
            if (behind[i] != RED) {
                return (long)block->shared_bytes + i;
            }
        }
    }
    return 0;
}

// Runs all threads to their end. Returns false after a reported failure, and, without a report, if a red zone was
// damaged.
inline bool run_threads(bool one_at_a_time) {
    Block &b = *block;
    b.one_at_a_time = one_at_a_time;
    memset(b.shared, FRESH, b.shared_bytes);
    if (!SANITIZED) {
        memset(b.shared - RED_ZONE, RED, RED_ZONE);
        memset(b.shared + b.shared_bytes, RED, RED_ZONE);
    }
    for (unsigned i = 0; i < b.threads.x; ++i) {
        b.all[i].state = READY;
        reset(b.all[i].fibre);
    }
    do {
        arrange(b.turns, b.threads.x, b.order, b.random);
        b.next_turn = 0;
        while (Thread *thread = next_ready()) {
            self = thread;
            switch_fibre(b.machine, thread->fibre, false);
            long at = damage();
            if (at && one_at_a_time) {
                char text[160];
                return fail("thread %u: wrote to byte %ld of %u of shared memory; then %s", thread->index.x, at,
                            b.shared_bytes, describe(*thread, text));
            }
            if (at) {
                return false;
            }
        }
    } while (release());
    return !b.report[0];
}

// Runs a block. If it damages a red zone, runs it again thread by thread to find the thread that did.
inline bool run_block() {
    unsigned long long random = block->random;
    if (run_threads(false)) {
        return true;
    }
    if (!block->report[0]) {
        long at = damage();
        block->random = random;
        run_threads(true);
        fail("a thread wrote to byte %ld of %u of shared memory", at, block->shared_bytes);
    }
    return false;
}

// ---- A launch

// Stacks and shared memory of a host thread, kept until it ends.
struct Memory {
    Thread *threads = nullptr;
    char *stacks = nullptr;
    unsigned char *shared = nullptr;

    Memory() {
        threads = (Thread *)calloc(THREADS_MAX, sizeof(Thread));
        stacks = (char *)aligned_alloc(64, THREADS_MAX * STACK_STRIDE);
        shared = (unsigned char *)aligned_alloc(RED_ZONE, SHARED_MAX + 2 * RED_ZONE);
        if (!threads || !stacks || !shared) {
            abort();
        }
        for (unsigned i = 0; i < THREADS_MAX; ++i) {
            threads[i].index = {i, 0, 0};
            place(threads[i].fibre, stacks, i);
        }
    }
    Memory(const Memory &) = delete;
    static Memory &mine() {
        static thread_local Memory memory;
        return memory;
    }
    ~Memory() {
        free(threads);
        free(stacks);
        free(shared);
    }
};

// Sets the current block of this host thread for the duration of a launch.
struct Running {
    explicit Running(Block *b) { block = b; }
    Running(const Running &) = delete;
    ~Running() { block = nullptr; }
};

inline bool allowed(const Launch &launch) {
    bool threads = launch.threads > 0 && launch.threads % WARP == 0 && launch.threads <= THREADS_MAX;
    bool grid = launch.grid_x <= 0x7fffffffu && launch.grid_y <= GRID_Y_MAX && launch.shared_bytes <= SHARED_MAX;
    if (!threads || !grid) {
        return fail("grid (%u, %u), %u threads, %u bytes of shared memory: beyond what a device takes", launch.grid_x,
                    launch.grid_y, launch.threads, launch.shared_bytes);
    }
    return true;
}

inline bool run_grid(const Launch &launch) {
    size_t n = (size_t)launch.grid_x * launch.grid_y;
    if (n == 0) {
        return true;
    }
    unsigned *order = (unsigned *)malloc(n * sizeof(unsigned));
    if (!order || n > 0xffffffffu) {
        free(order);
        return fail("a grid of %zu blocks is too large to emulate", n);
    }
    Block &b = *block;
    arrange(order, (unsigned)n, launch.order, b.random);
    bool well = true;
    for (size_t i = 0; well && i < n; ++i) {
        b.at = {order[i] % launch.grid_x, order[i] / launch.grid_x, 0};
        well = run_block();
    }
    free(order);
    for (unsigned i = 0; i < launch.threads; ++i) {
        well = well && (!stack_overflowed(b.all[i].fibre) || fail("thread %u: used more than its stack", i));
    }
    return well;
}

template <typename Params, void (*kernel)(const Params &)>
int launch(const char *name, const void *params, unsigned bytes, const Launch &launch, char *report, size_t report_bytes) {
    Memory &memory = Memory::mine();
    Params copy;
    Block b = {};
    b.threads = {launch.threads, 1, 1};
    b.grid = {launch.grid_x, launch.grid_y, 1};
    b.all = memory.threads;
    b.kernel = [](const void *params) { kernel(*(const Params *)params); };
    b.params = &copy;
    b.shared = memory.shared + RED_ZONE;
    b.shared_bytes = launch.shared_bytes;
    b.order = launch.order;
    b.random = launch.seed;
    b.name = name;
    b.report = report;
    b.report_bytes = report_bytes;
    Running running(&b);
    report[0] = 0;
    if (bytes != sizeof(Params)) {
        return fail("parameters of %u bytes, where the kernel takes %zu", bytes, sizeof(Params)), 1;
    }
    memcpy(&copy, params, bytes);
    if (!allowed(launch)) {
        return 1;
    }
    poison(memory.shared, RED_ZONE);
    poison(b.shared + b.shared_bytes, RED_ZONE);
    bool well = run_grid(launch);
    unpoison(memory.shared, SHARED_MAX + 2 * RED_ZONE);
    if (!well) {
        unpoison(memory.stacks, THREADS_MAX * STACK_STRIDE); // threads that never ended left their frames poisoned
    }
    return well ? 0 : 1;
}

} // namespace emulated
