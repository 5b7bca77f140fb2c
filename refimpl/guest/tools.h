/*
 * Small tools of the guest's program: its parameters, time, checksums, random numbers, complaints.
 */
#define SECOND_NS 1000000000LL

static char cmdline[4096];
static uint32_t crc_table[256];

static const char *parameter(const char *name, char *value, size_t size) {
    char key[64];
    snprintf(key, sizeof key, "refimpl.%s=", name);
    for (char *at = strstr(cmdline, key); at; at = strstr(at + 1, key)) {
        if (at != cmdline && at[-1] != ' ') continue;
        at += strlen(key);
        snprintf(value, size, "%.*s", (int)strcspn(at, " \n"), at);
        return value;
    }
    return NULL;
}

static long number_parameter(const char *name, long otherwise) {
    char value[64];
    return parameter(name, value, sizeof value) ? strtol(value, NULL, 10) : otherwise;
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND_NS + t.tv_nsec;
}

static void sleep_until(int64_t at_ns) {
    struct timespec t = {at_ns / SECOND_NS, at_ns % SECOND_NS};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {}
}

static void make_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
}

static uint32_t crc32(const void *data, size_t size) {
    uint32_t c = ~0u;
    for (const uint8_t *p = data; size--; p++) c = crc_table[(c ^ *p) & 255] ^ (c >> 8);
    return ~c;
}

static uint64_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void fatal(const char *what) {
    printf("refimpl-guest: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

static void complain(const char *what) { printf("refimpl-guest: %s: %s\n", what, strerror(errno)); }

static void start(void *(*worker)(void *), void *argument) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, worker, argument)) fatal("thread");
}

/* Reads a marker from hexadecimal digits; what is not one leaves it zero. */
static void read_marker(const char *digits, uint8_t *to, int size) {
    for (int i = 0; i < size; i++)
        if (sscanf(digits + 2 * i, "%2hhx", &to[i]) != 1) return (void)memset(to, 0, size);
}
