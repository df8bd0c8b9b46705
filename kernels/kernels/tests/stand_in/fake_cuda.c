/* Replaces the driver, cuFFT and NVRTC on machines without them: returns their results while a backend is opened, as
 * specified by the variables FAKE_*. It computes nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) {
    const char *value = getenv(name);
    return value ? atoi(value) : otherwise;
}

/* Copies word number `place` of a list separated by commas; the last word is used for all larger numbers. */
static void word(const char *name, int place, const char *otherwise, char *out, int length) {
    const char *words = getenv(name);
    if (!words) words = otherwise;
    for (const char *next; place > 0 && (next = strchr(words, ',')); --place) words = next + 1;
    snprintf(out, (size_t)length, "%.*s", (int)strcspn(words, ","), words);
}

/* The driver */
int cuDriverGetVersion(int *version) { return *version = number("FAKE_DRIVER", 13000), 0; }
int cuInit(unsigned flags) { return (void)flags, number("FAKE_INIT", 0); }
int cuDeviceGetCount(int *count) { return *count = number("FAKE_GPUS", 1), 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char *name, int length, int device) {
    return word("FAKE_NAMES", device, "NVIDIA Fake", name, length), 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { return (void)device, *bytes = 143771ull << 20, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    char capability[16];
    word("FAKE_CAPABILITIES", device, "90", capability, sizeof capability);
    int both = atoi(capability);
    *value = attribute == 75 ? both / 10 : attribute == 76 ? both % 10 : 1;
    return 0;
}
static char contexts[16];
int cuDevicePrimaryCtxRetain(void **context, int device) { return *context = &contexts[device], 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, 0; }
static void *current;
int cuCtxGetCurrent(void **context) { return *context = current, 0; }
int cuCtxSetCurrent(void *context) { return current = context, 0; }
int cuCtxSetFlags(unsigned flags) { return (void)flags, 0; }
int cuModuleLoadData(void **module, const void *image) {
    *module = contexts;
    return memcmp(image, "\x7f" "ELF fake", 9) ? 200 : 0;
}
int cuModuleUnload(void *module) { return (void)module, 0; }
int cuGetErrorString(int error, const char **text) {
    return *text = error == 803 ? "system has unsupported display driver / cuda driver combination" : "fake error", 0;
}

/* cuFFT: major, minor, patch */
int cufftGetProperty(int which, int *value) {
    char part[16];
    word("FAKE_CUFFT", which, "12,0,0", part, sizeof part);
    return *value = atoi(part), 0;
}

/* NCCL: version in its own encoding */
int ncclGetVersion(int *version) { return *version = number("FAKE_NCCL", 22809), 0; }

/* NVRTC */
int nvrtcVersion(int *major, int *minor) { return *major = number("FAKE_NVRTC", 13), *minor = 0, 0; }
int nvrtcGetNumSupportedArchs(int *count) { return *count = 2, 0; }
int nvrtcGetSupportedArchs(int *known) { return known[0] = 80, known[1] = 90, 0; }
int nvrtcCreateProgram(void **program, const char *source, const char *name, int n, void *headers, void *names) {
    (void)source, (void)name, (void)n, (void)headers, (void)names;
    return *program = contexts, 0;
}
int nvrtcDestroyProgram(void **program) { return *program = NULL, 0; }
int nvrtcCompileProgram(void *program, int n, const char **options) {
    (void)program;
    FILE *file = fopen(getenv("FAKE_COMPILED"), "a");
    for (int i = 0; i < n; ++i) fprintf(file, "%s%c", options[i], i + 1 < n ? ' ' : '\n');
    fclose(file);
    return getenv("FAKE_LOG") ? 6 : 0;
}
int nvrtcGetProgramLogSize(void *program, size_t *size) {
    return (void)program, *size = strlen(getenv("FAKE_LOG")) + 1, 0;
}
int nvrtcGetProgramLog(void *program, char *log) { return (void)program, strcpy(log, getenv("FAKE_LOG")), 0; }
int nvrtcGetCUBINSize(void *program, size_t *size) { return (void)program, *size = 9, 0; }
int nvrtcGetCUBIN(void *program, char *cubin) { return (void)program, memcpy(cubin, "\x7f" "ELF fake", 9), 0; }
