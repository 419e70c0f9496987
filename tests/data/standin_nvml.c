/* A driver library for tests: answers as NVML does, or as NVML has been seen to answer.
 *
 * STANDIN_NVML holds words, separated by commas; each changes one thing. Without any it is a healthy
 * GPU of 16 GiB. Compiled with -DBARE it has only what every driver has. The layouts are those of
 * nvml.h.
 */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, TOO_SMALL = 7, LOST = 15, MISMATCH = 18 };

static int asked_for(const char *word) {
    const char *words = getenv("STANDIN_NVML");
    size_t length = strlen(word);
    while (words && *words) {
        size_t next = strcspn(words, ",");
        if (next == length && strncmp(words, word, length) == 0) return 1;
        words += next + (words[next] == ',');
    }
    return 0;
}

static const unsigned ALL_ONES = 4294967295u;
static const unsigned long long GIB = 1ull << 30;

int nvmlInit_v2(void) {
    if (asked_for("mismatch")) return MISMATCH;
    if (asked_for("forbidden")) return NO_PERMISSION;
    if (asked_for("evil")) return 4712;
    return asked_for("unheard-of") ? 4711 : OK;
}
int nvmlInitWithFlags(unsigned flags) { (void)flags; return nvmlInit_v2(); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
    if (code == 4711) return "\xff\xfe\x80";
    if (code == 4712) return "\x1b[2Jbroken";
    return code == LOST ? "GPU is lost" : "an error";
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    (void)size;
    strcpy(text, asked_for("latin1") ? "580.\xe9" : "580.95.05");
    return OK;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = asked_for("garbage") ? -1 : 13000;
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = asked_for("countless") ? ALL_ONES : asked_for("two") ? 2 : 1;
    return OK;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)(size_t)(index + 1);
    return OK;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    (void)device; (void)size;
    if (asked_for("lost")) return LOST;
    strcpy(text, asked_for("latin1")   ? "NVIDIA \xe9\xff RTX"
                 : asked_for("gb10")   ? "NVIDIA GB10"
                 : asked_for("jetson") ? "Orin (nvgpu)"
                                       : "NVIDIA RTX 3080");
    return OK;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    (void)device; (void)size;
    strcpy(text, asked_for("latin1") ? "GPU-\xff" : "GPU-0000");
    return OK;
}

#ifndef BARE
struct memory { unsigned long long total, free, used; };
struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo(void *device, struct memory *found) {
    (void)device;
    if (asked_for("gb10") && !asked_for("zero")) return NOT_SUPPORTED;
    if (asked_for("jetson") && !asked_for("zero")) return NOT_SUPPORTED;
    found->total = asked_for("zero") ? 0 : 16 * GIB;
    found->used = asked_for("zero") ? 0 : asked_for("garbage") ? 17 * GIB : 2 * GIB;
    found->free = found->total - found->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, struct memory_v2 *found) {
    struct memory plain = {0, 0, 0};
    int code = nvmlDeviceGetMemoryInfo(device, &plain);
    found->total = plain.total;
    found->used = plain.used;
    found->free = plain.free;
    found->reserved = 0;
    return code;
}
struct rates { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(void *device, struct rates *found) {
    (void)device;
    found->gpu = asked_for("garbage") ? ALL_ONES : 12;
    found->memory = 0;
    return OK;
}
static int figure(void *device, unsigned *found, unsigned healthy) {
    (void)device;
    *found = asked_for("garbage") ? ALL_ONES : healthy;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *found) { return figure(device, found, 70000); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *found) {
    return figure(device, found, 320000);
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *found) {
    (void)device;
    *found = asked_for("garbage") ? ~0ull : 5000;
    return OK;
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *found) {
    (void)sensor;
    return figure(device, found, 35);
}
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *found) {
    (void)kind;
    return figure(device, found, 1500);
}
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *found) {
    (void)device;
    *found = asked_for("garbage") ? ~0ull : 4;
    return OK;
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, struct process *found) {
    /* The highest numbers that Linux gives: smaller ones may belong to a process of this machine. */
    static const unsigned pids[] = {4194303u, 0, 4294967295u, 4194305u, 4194302u};
    unsigned most = asked_for("pids") ? 5 : asked_for("gb10") ? 1 : 0, room = *count;
    const char *own = getenv("STANDIN_PID");
    (void)device;
    *count = most;
    if (most == 0) return OK;
    if (!found || room < most) return TOO_SMALL;
    for (unsigned n = 0; n < most; n++) {
        found[n].pid = asked_for("pids") ? pids[n] : own ? (unsigned)atoi(own) : 1;
        found[n].memory = asked_for("pids") ? ~0ull : 2 * GIB;
        found[n].gpu_instance = found[n].instance = ALL_ONES;
    }
    return OK;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, struct process *found) {
    (void)device; (void)found;
    *count = 0;
    return OK;
}
#endif
