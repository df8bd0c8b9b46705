// Counts what a kernel's memory accesses cost on a GPU, warp by warp. Include after block.h; empty unless a test
// enables counting.
//
// The unit is then compiled with -fsanitize=thread, which calls a function before every access to memory. Those
// functions are defined here, so no sanitizer is linked. Without optimisation the calls correspond to the source: each
// access in the source is counted, and whole structs are moved in one access. One case is not detected: a struct passed
// by value directly from memory, so kernels read it into a variable first.
#ifdef WAVEMILL_EMULATED_COUNT
#ifdef __clang__
#error "accesses are counted by g++ alone: clang calls other functions for structs"
#endif

// Functions with this attribute are not counted themselves.
#define UNCOUNTED __attribute__((no_sanitize("thread"))) static

namespace emulated {

constexpr unsigned LINE_BYTES = 128; // of global memory
constexpr unsigned BANKS = 32;       // of shared memory
constexpr unsigned BANK_BYTES = 4;
constexpr unsigned KERNELS_MAX = 64;

// Same layout as in counts.rs. An access of a warp comprises the accesses of all its lanes.
struct Counts {
    unsigned long long shared_accesses, shared_wavefronts;
    unsigned long long global_accesses, global_lines;
};

// A buffer in device memory.
struct Zone {
    uintptr_t start, bytes;
};

// One lane's access.
struct Access {
    uintptr_t site; // the code address of the access
    uintptr_t address;
    unsigned bytes, lane;
    unsigned number; // index in the warp's records; later the number of the lane's earlier accesses from the same site
    bool is_shared;
};

// Accesses of the lanes of a warp since they last met.
struct Records {
    Access *all;
    size_t n, room;
};

struct Totals {
    const char *kernel;
    Counts counts;
};

// Zero-initialised without a constructor, which would be counted before a counter exists.
struct Counter {
    Records warps[THREADS_MAX / WARP];
    Totals totals[KERNELS_MAX];
    const Zone *zones;
    size_t n_zones;

    __attribute__((no_sanitize("thread"))) static Counter &mine() {
        static thread_local Counter counter;
        return counter;
    }
    __attribute__((no_sanitize("thread"))) ~Counter() {
        for (Records &records : warps) {
            free(records.all);
        }
    }
};

// Returns the totals of a kernel, or the first unused ones.
UNCOUNTED Totals &totals_of(const char *kernel) {
    Totals *totals = Counter::mine().totals;
    for (unsigned at = 0; at < KERNELS_MAX; ++at) {
        if (!totals[at].kernel || strcmp(totals[at].kernel, kernel) == 0) {
            return totals[at];
        }
    }
    abort();
}

// ---- Recording

UNCOUNTED bool is_global(const Counter &counter, uintptr_t address) {
    for (size_t i = 0; i < counter.n_zones; ++i) {
        if (address - counter.zones[i].start < counter.zones[i].bytes) {
            return true;
        }
    }
    return false;
}

// Stacks and parameters are registers and constants on a GPU: only accesses to shared memory and buffers are counted.
UNCOUNTED void record(const void *at, unsigned bytes, uintptr_t site) {
    if (!block || !self) {
        return; // before or after a launch
    }
    Counter &counter = Counter::mine();
    uintptr_t address = (uintptr_t)at;
    bool is_shared = address - (uintptr_t)block->shared < block->shared_bytes;
    if (!is_shared && !is_global(counter, address)) {
        return;
    }
    unsigned thread = self->index.x;
    if (address % bytes != 0) {
        fail("thread %u: an access of %u bytes that is not aligned to them", thread, bytes);
    }
    Records &records = counter.warps[thread / WARP];
    if (records.n == records.room) {
        records.room = records.room ? 2 * records.room : 1024;
        records.all = (Access *)realloc(records.all, records.room * sizeof(Access));
        if (!records.all) {
            abort();
        }
    }
    records.all[records.n] = {site, address, bytes, thread % WARP, (unsigned)records.n, is_shared};
    ++records.n;
}

// Records an access to a struct of unusual size, in aligned pieces.
UNCOUNTED void record_range(const void *at, size_t bytes, uintptr_t site) {
    unsigned piece = 16;
    while (bytes % piece != 0 || (uintptr_t)at % piece != 0) {
        piece /= 2;
    }
    for (size_t i = 0; i < bytes; i += piece) {
        record((const char *)at + i, piece, site + i); // a site per piece: the pieces are consecutive accesses
    }
}

// ---- Adding up

UNCOUNTED int compare(unsigned long long a, unsigned long long b) { return a < b ? -1 : a > b; }

UNCOUNTED int by_lane(const void *left, const void *right) {
    const Access &a = *(const Access *)left, &b = *(const Access *)right;
    int site = compare(a.site, b.site), lane = compare(a.lane, b.lane);
    return site ? site : lane ? lane : compare(a.number, b.number);
}

UNCOUNTED int by_visit(const void *left, const void *right) {
    const Access &a = *(const Access *)left, &b = *(const Access *)right;
    int site = compare(a.site, b.site), visit = compare(a.number, b.number);
    return site ? site : visit ? visit : compare(a.lane, b.lane);
}

// Returns the number of lines of global memory that one access of a warp touches.
UNCOUNTED unsigned lines(const Access *all, size_t n) {
    unsigned found = 0;
    for (size_t i = 0; i < n; ++i) {
        bool is_new = true;
        for (size_t k = 0; k < i && is_new; ++k) {
            is_new = all[i].address / LINE_BYTES != all[k].address / LINE_BYTES;
        }
        found += is_new;
    }
    return found;
}

// Returns the wavefronts of one access to shared memory by lanes that are served at once: different words of one bank
// need one wavefront each, and all lanes that use the same word share it.
UNCOUNTED unsigned wavefronts_at_once(const Access *all, size_t n) {
    uintptr_t words[BANKS * 2];
    unsigned n_words = 0, in_bank[BANKS] = {}, most = 0;
    for (size_t i = 0; i < n; ++i) {
        for (unsigned byte = 0; byte < all[i].bytes; byte += BANK_BYTES) {
            uintptr_t word = (all[i].address + byte) / BANK_BYTES;
            bool is_new = true;
            for (unsigned k = 0; k < n_words && is_new; ++k) {
                is_new = words[k] != word;
            }
            if (is_new) {
                words[n_words++] = word;
                unsigned here = ++in_bank[word % BANKS];
                most = here > most ? here : most;
            }
        }
    }
    return most;
}

UNCOUNTED bool is_uniform(const Access *all, size_t n) {
    for (size_t i = 1; i < n; ++i) {
        if (all[i].address != all[0].address) {
            return false;
        }
    }
    return true;
}

// An access of all lanes to one address is one wavefront. Otherwise a warp is served as a whole, in halves if lanes
// access 8 bytes, in quarters if they access 16.
UNCOUNTED unsigned wavefronts(const Access *all, size_t n) {
    if (is_uniform(all, n)) {
        return 1;
    }
    unsigned lanes_at_once = all[0].bytes <= BANK_BYTES ? WARP : BANKS * BANK_BYTES / all[0].bytes;
    unsigned sum = 0;
    for (size_t first = 0, end; first < n; first = end) {
        end = first;
        while (end < n && all[end].lane / lanes_at_once == all[first].lane / lanes_at_once) {
            ++end;
        }
        sum += wavefronts_at_once(all + first, end - first);
    }
    return sum;
}

UNCOUNTED void add_up(Records &records, Counts &counts) {
    Access *all = records.all;
    qsort(all, records.n, sizeof(Access), by_lane);
    unsigned visit = 0;
    for (size_t i = 0; i < records.n; ++i) {
        bool again = i > 0 && all[i].site == all[i - 1].site && all[i].lane == all[i - 1].lane;
        visit = again ? visit + 1 : 0;
        all[i].number = visit;
    }
    qsort(all, records.n, sizeof(Access), by_visit);
    for (size_t first = 0, end; first < records.n; first = end) {
        end = first;
        while (end < records.n && all[end].site == all[first].site && all[end].number == all[first].number) {
            ++end;
        }
        if (all[first].is_shared) {
            ++counts.shared_accesses;
            counts.shared_wavefronts += wavefronts(all + first, end - first);
        } else {
            ++counts.global_accesses;
            counts.global_lines += lines(all + first, end - first);
        }
    }
    records.n = 0;
}

// The `n` threads from `first` have met, so lanes that were ahead or took another branch are synchronized again: the
// n-th access of a lane from a site belongs to the n-th access of the other lanes from that site.
UNCOUNTED void count_phase(unsigned first, unsigned n) {
    Counter &counter = Counter::mine();
    Totals &totals = totals_of(block->name);
    totals.kernel = block->name; // the string lives as long as this code
    for (unsigned warp = first / WARP; warp < (first + n) / WARP; ++warp) {
        if (counter.warps[warp].n > 0) {
            add_up(counter.warps[warp], totals.counts);
        }
    }
}

} // namespace emulated

// ---- Functions that -fsanitize=thread calls

#define COUNTED extern "C" __attribute__((no_sanitize("thread")))
#define SITE ((uintptr_t)__builtin_return_address(0))
#define ACCESS(name, bytes)                                                                                           \
    COUNTED void __tsan_##name(void *at) { emulated::record(at, bytes, SITE); }
ACCESS(read1, 1)
ACCESS(read2, 2)
ACCESS(read4, 4)
ACCESS(read8, 8)
ACCESS(read16, 16)
ACCESS(write1, 1)
ACCESS(write2, 2)
ACCESS(write4, 4)
ACCESS(write8, 8)
ACCESS(write16, 16)
ACCESS(unaligned_read2, 2)
ACCESS(unaligned_read4, 4)
ACCESS(unaligned_read8, 8)
ACCESS(unaligned_read16, 16)
ACCESS(unaligned_write2, 2)
ACCESS(unaligned_write4, 4)
ACCESS(unaligned_write8, 8)
ACCESS(unaligned_write16, 16)
COUNTED void __tsan_read_range(void *at, size_t bytes) { emulated::record_range(at, bytes, SITE); }
COUNTED void __tsan_write_range(void *at, size_t bytes) { emulated::record_range(at, bytes, SITE); }
COUNTED void __tsan_func_entry(void *) {}
COUNTED void __tsan_func_exit() {}
COUNTED void __tsan_init() {}

// For counts.rs: sets the zones of device memory, in an array that must stay valid until the next call.
COUNTED __attribute__((visibility("default"))) void emulated_count_in(const emulated::Zone *zones, size_t n) {
    emulated::Counter &counter = emulated::Counter::mine();
    counter.zones = zones;
    counter.n_zones = n;
}

// For counts.rs: returns the counts of a kernel's launches on this thread since the last call.
COUNTED __attribute__((visibility("default"))) void emulated_take_counts(const char *kernel, emulated::Counts *counts) {
    emulated::Totals &found = emulated::totals_of(kernel);
    *counts = found.counts;
    found.counts = {};
}
#endif
