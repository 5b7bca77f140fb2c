/*
 * The guest that proves things: process 1 of a virtual machine, the only program in it.
 *
 * It emits heartbeats, writes and checks memory, writes and checks disk blocks, sends back what comes by TCP, and obeys
 * a few commands that come as UDP datagrams. What it says goes to the second serial port, one line each, in the
 * protocol that refimpl/meter/lines.py documents. Parameters are read from the kernel command line, as GuestParameters
 * (refimpl/guest/parameters.py) writes them; the layout of a disk block is documented in refimpl/meter/disk.py.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGE_WORDS = PAGE / 8, HEADER_WORDS = 6, MARKER = 16 };
enum { COMMAND_PORT = 7001, STREAM_PORT = 7002, TICK_NS = 10000000 };

#include "tools.h"

static char boot_id[7];
static int line_fd = -1, beat_socket = -1;
static struct sockaddr_in observer;
static uint8_t marker[MARKER]; /* what a listener on the network looks for; zero: none */

/* Set by commands, read by the workers. */
static atomic_long muted_beats, writer_rate, corruptions_wanted, bytes_to_skip;
static atomic_int check_wanted, disk_paused;

/* ---- the line channel ---- */

static pthread_mutex_t line_lock;
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER; /* held while a block is written and read back */

static int format_line(char *out, size_t size, uint64_t sequence, const char *text) {
    int length = snprintf(out, size, "~%s %llu %s", boot_id, (unsigned long long)sequence, text);
    return length + snprintf(out + length, size - length, " *%08x\n", crc32(out + 1, length - 1));
}

static void write_all(int fd, const char *data, int size) {
    while (size > 0) {
        ssize_t done = write(fd, data, size);
        if (done < 0 && errno != EINTR) return complain("line channel");
        if (done > 0) data += done, size -= done;
    }
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
    static uint64_t sequence;
    char text[240], line[320];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&line_lock);
    write_all(line_fd, line, format_line(line, sizeof line, ++sequence, text));
    pthread_mutex_unlock(&line_lock);
}

static void open_line_channel(void) {
    struct termios raw;
    line_fd = open("/dev/ttyS1", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (line_fd < 0) fatal("/dev/ttyS1 (second serial port)");
    if (tcgetattr(line_fd, &raw) < 0) fatal("/dev/ttyS1 is no terminal (second serial port missing)");
    cfmakeraw(&raw);
    raw.c_cflag |= CLOCAL;
    cfsetspeed(&raw, B115200);
    tcsetattr(line_fd, TCSANOW, &raw);
    pthread_mutexattr_t attributes; /* the heartbeat must not wait for a preempted worker */
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&line_lock, &attributes);
}

/* ---- heartbeat ---- */

static void send_beat(uint64_t number) {
    char datagram[64];
    int length = format_line(datagram, sizeof datagram, number, "udp");
    if (beat_socket >= 0) sendto(beat_socket, datagram, length, MSG_DONTWAIT, (void *)&observer, sizeof observer);
}

static void *heartbeat(void *unused) {
    int64_t period_ns = number_parameter("beat_ms", 10) * 1000000, next_ns = now_ns();
    struct sched_param first = {.sched_priority = 50};
    pthread_setschedparam(pthread_self(), SCHED_FIFO, &first);
    for (uint64_t number = 1;; number++) {
        sleep_until(next_ns);
        next_ns += period_ns;
        if (next_ns < now_ns()) next_ns = now_ns() + period_ns; /* late: no burst to catch up */
        if (atomic_load(&muted_beats) > 0) {
            atomic_fetch_sub(&muted_beats, 1);
            continue;
        }
        send_beat(number);
        say("beat %llu", (unsigned long long)number);
    }
    return unused;
}

/* ---- memory: every page carries its number, generation and checksum; all of it can be made again from these ---- */

enum content { ZERO, TEXT, RANDOM };
static uint64_t (*pages)[PAGE_WORDS];
static uint32_t *generations; /* what each page has to hold: finds an old page that is whole */
static long page_count, bad_in_pass, first_bad, bad_lines;
static enum content content;
static char chunks[64][8];

static void make_chunks(void) {
    static const char words[] = "the host moves a running machine and each page of it arrives whole or is sent again so that ";
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 8; j++) chunks[i][j] = words[(i * 5 + j) % (sizeof words - 1)];
}

static uint64_t page_sum(const uint64_t *page) {
    uint64_t sum = 0x9E3779B97F4A7C15u;
    for (int i = 0; i < PAGE_WORDS; i++)
        if (i != 2) sum = ((sum << 5 | sum >> 59) ^ page[i]) * 0xD6E8FEB86659FD93u;
    return sum;
}

static void write_page(long number) {
    uint64_t *page = pages[number], state = (uint64_t)number * 0x9E3779B97F4A7C15u ^ ++generations[number];
    page[0] = 0x5245464D50414745u;
    page[1] = (uint64_t)number << 32 | generations[number];
    page[3] = content;
    memcpy(&page[4], marker, MARKER);
    state |= 1;
    for (int i = HEADER_WORDS; i < PAGE_WORDS; i++) {
        if (content == RANDOM) page[i] = next_random(&state);
        else if (content == TEXT) memcpy(&page[i], chunks[next_random(&state) >> 58], 8);
        else page[i] = 0;
    }
    page[2] = page_sum(page);
}

static unsigned long long physical_address(const void *address) {
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && pread(fd, &entry, 8, (uintptr_t)address / PAGE * 8) != 8) entry = 0;
    if (fd >= 0) close(fd);
    return (entry & ((1ULL << 55) - 1)) * PAGE;
}

static void verify_page(long number) {
    const uint64_t *page = pages[number];
    uint64_t expected = (uint64_t)number << 32 | generations[number];
    if (page[1] == expected && page[2] == page_sum(page)) return;
    if (bad_in_pass++ == 0) first_bad = number;
    if (bad_lines++ < 16)
        say("bad-page %ld %u %llx %llx", number, generations[number], (unsigned long long)page[1],
            physical_address(page));
}

static void corrupt_a_page(void) {
    static long which;
    which = (which + 7919) % page_count;
    pages[which][PAGE_WORDS / 2] ^= 0x100;
}

static void make_pages(void) {
    page_count = number_parameter("set_mib", 16) * 256;
    pages = mmap(NULL, page_count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    generations = calloc(page_count, sizeof *generations);
    if (pages == MAP_FAILED || !generations) fatal("working set");
    madvise(pages, page_count * PAGE, MADV_NOHUGEPAGE);
    for (long i = 0; i < page_count; i++) write_page(i);
    if (mlock(pages, page_count * PAGE) < 0) complain("mlock");
}

/* Pages of noise, the marker in each: where whole blocks have no pattern, compression leaves them as they are. */
static void make_marker_pages(void) {
    enum { COUNT = 64 };
    uint64_t state, *words = mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (words == MAP_FAILED) fatal("marker pages");
    memcpy(&state, marker, sizeof state);
    state |= 1;
    for (int i = 0; i < COUNT * PAGE_WORDS; i++) words[i] = next_random(&state);
    for (int i = 0; i < COUNT; i++) memcpy(&words[i * PAGE_WORDS], marker, MARKER);
    if (mlock(words, COUNT * PAGE) < 0) complain("mlock");
}

static void write_some(int64_t elapsed_ns) {
    static long next;
    static int64_t owed; /* pages times nanoseconds */
    owed += elapsed_ns * atomic_load(&writer_rate);
    for (; owed >= SECOND_NS; owed -= SECOND_NS, next = (next + 1) % page_count) {
        verify_page(next); /* before it is overwritten: a loss must not be covered */
        write_page(next);
    }
}

static void check_some(int64_t elapsed_ns, long pages_per_s) {
    static long pass, at;
    static int64_t owed;
    static int in_a_hurry;
    owed += elapsed_ns * pages_per_s;
    if (atomic_exchange(&check_wanted, 0)) at = 0, in_a_hurry = 1;
    long budget = in_a_hurry ? 512 : owed / SECOND_NS;
    owed %= SECOND_NS;
    while (budget-- > 0) {
        if (at == 0) {
            bad_in_pass = 0;
            say("check-start %ld", ++pass);
        }
        verify_page(at++);
        if (at < page_count) continue;
        at = in_a_hurry = 0;
        if (bad_in_pass) say("check-end %ld %ld %ld %ld", pass, page_count, bad_in_pass, first_bad);
        else say("check-end %ld %ld 0 -", pass, page_count);
        return;
    }
}

static void *memory_worker(void *unused) {
    long pages_per_s = number_parameter("check_pages", 4096);
    int64_t before_ns = now_ns();
    for (;;) {
        sleep_until(before_ns + TICK_NS);
        int64_t elapsed_ns = now_ns() - before_ns;
        before_ns += elapsed_ns;
        if (elapsed_ns > 10 * TICK_NS) elapsed_ns = 10 * TICK_NS;
        for (; atomic_load(&corruptions_wanted) > 0; atomic_fetch_sub(&corruptions_wanted, 1)) corrupt_a_page();
        write_some(elapsed_ns);
        check_some(elapsed_ns, pages_per_s);
    }
    return unused;
}

/* ---- disk: numbered blocks round robin, acknowledged after fdatasync ---- */

struct block {
    char magic[8], boot[8];
    uint64_t number, slot;
    uint32_t crc, zero; /* crc over the whole block with this field 0 */
    uint8_t body[PAGE - 40];
};

static uint32_t fill_block(struct block *block, uint64_t number, uint64_t slot) {
    uint64_t state = number * 0x9E3779B97F4A7C15u | 1;
    memset(block, 0, sizeof *block);
    memcpy(block->magic, "REFMBLK1", 8);
    memcpy(block->boot, boot_id, 6);
    block->number = number;
    block->slot = slot;
    for (int i = 0; i < MARKER; i++) block->body[i] = ~marker[i]; /* another than in memory */
    for (size_t i = MARKER; i + 8 <= sizeof block->body; i += 8) {
        uint64_t word = next_random(&state);
        memcpy(block->body + i, &word, 8);
    }
    return block->crc = crc32(block, sizeof *block);
}

static const char *write_block(int fd, struct block *block, struct block *again, uint64_t slot) {
    if (pwrite(fd, block, PAGE, slot * PAGE) != PAGE) return "write";
    if (fdatasync(fd) < 0) return "flush";
    if (pread(fd, again, PAGE, slot * PAGE) != PAGE) return "read";
    return memcmp(block, again, PAGE) ? "differs" : NULL;
}

static void *disk_worker(void *unused) {
    long period_ms = number_parameter("disk_ms", 100), slots = number_parameter("disk_blocks", 256);
    int fd = open("/dev/vda", O_RDWR | O_DIRECT | O_CLOEXEC);
    struct block *block = aligned_alloc(PAGE, PAGE), *again = aligned_alloc(PAGE, PAGE);
    if (fd < 0 || !block || !again) {
        say("disk-error 0 0 open-%d", errno);
        return unused;
    }
    for (uint64_t number = 1;;) {
        int64_t next_ns = now_ns() + period_ms * 1000000;
        if (!atomic_load(&disk_paused)) {
            uint64_t slot = (number - 1) % slots;
            uint32_t crc = fill_block(block, number, slot);
            pthread_mutex_lock(&disk_lock);
            const char *wrong = write_block(fd, block, again, slot);
            pthread_mutex_unlock(&disk_lock);
            if (wrong) say("disk-error %llu %llu %s", (unsigned long long)number, (unsigned long long)slot, wrong);
            else say("disk %llu %llu %08x", (unsigned long long)number, (unsigned long long)slot, crc);
            number++;
        }
        sleep_until(next_ns);
    }
}

/* ---- stream: what comes by a TCP connection goes back, byte by byte, after a line that says which boot this is ---- */

static int send_back(int fd, const char *data, ssize_t size) {
    long skip = atomic_exchange(&bytes_to_skip, 0);
    if (skip > size) atomic_store(&bytes_to_skip, skip - size), skip = size;
    for (data += skip, size -= skip; size > 0;) {
        ssize_t done = send(fd, data, size, MSG_NOSIGNAL);
        if (done < 0) return 0;
        data += done, size -= done;
    }
    return 1;
}

static void *stream(void *connection) {
    int fd = (intptr_t)connection, one = 1;
    char data[2048];
    ssize_t size = format_line(data, sizeof data, 1, "stream");
    pthread_detach(pthread_self());
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    send(fd, data, size, MSG_NOSIGNAL);
    while ((size = recv(fd, data, sizeof data, 0)) > 0 && send_back(fd, data, size)) {}
    close(fd);
    return NULL;
}

static void *stream_listener(void *unused) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(STREAM_PORT)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (void *)&here, sizeof here) < 0 || listen(fd, 8) < 0) return complain("stream"), unused;
    for (;;) {
        int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        if (connection >= 0) start(stream, (void *)(intptr_t)connection);
        else complain("accept");
    }
}

/* ---- commands ---- */

static const char *obey(const char *verb, long value) {
    static char answer[64];
    if (!strcmp(verb, "mute")) atomic_store(&muted_beats, value);
    else if (!strcmp(verb, "rate")) atomic_store(&writer_rate, value);
    else if (!strcmp(verb, "check")) atomic_store(&check_wanted, 1);
    else if (!strcmp(verb, "corrupt")) atomic_fetch_add(&corruptions_wanted, 1);
    else if (!strcmp(verb, "disk")) atomic_store(&disk_paused, value == 0);
    else if (!strcmp(verb, "skip")) atomic_fetch_add(&bytes_to_skip, value);
    else if (!strcmp(verb, "off") || !strcmp(verb, "reboot") || !strcmp(verb, "panic")) return verb;
    else if (!strcmp(verb, "where") && value >= 0 && value < page_count) {
        snprintf(answer, sizeof answer, "%llx", physical_address(pages[value]));
        return answer;
    } else return "unknown";
    return "done";
}

static void panic_now(void) {
    int fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "c", 1) < 0) complain("/proc/sysrq-trigger");
}

static void *command_listener(void *unused) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(COMMAND_PORT)}, peer;
    if (fd < 0 || bind(fd, (void *)&here, sizeof here) < 0) return complain("commands"), unused;
    for (;;) {
        char text[128], verb[32] = "";
        long value = 0;
        socklen_t size = sizeof peer;
        ssize_t length = recvfrom(fd, text, sizeof text - 1, 0, (void *)&peer, &size);
        if (length <= 0) continue;
        text[length] = 0;
        sscanf(text, "%31s %ld", verb, &value);
        const char *answer = obey(verb, value);
        say("command %s %ld %s", verb[0] ? verb : "-", value, answer);
        sendto(fd, answer, strlen(answer), 0, (void *)&peer, size);
        if (answer != verb) continue;
        /* What is still in the card when the machine goes is lost, the answer too. */
        sleep_until(now_ns() + 10 * TICK_NS);
        tcdrain(line_fd);
        sync();
        if (!strcmp(verb, "panic")) panic_now();
        pthread_mutex_lock(&disk_lock); /* a disk that is shut down under a write would look like one that fails */
        reboot(strcmp(verb, "reboot") ? RB_POWER_OFF : RB_AUTOBOOT);
    }
}

/* ---- start ---- */

static void mount_all(void) {
    if (mount("proc", "/proc", "proc", 0, "") < 0 || mount("sysfs", "/sys", "sysfs", 0, "") < 0) fatal("mount");
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, "") < 0 && errno != EBUSY) fatal("devtmpfs");
    for (int fd = 0; fd < 3; fd++) dup2(open("/dev/console", O_RDWR), fd);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int fd = open("/proc/cmdline", O_RDONLY);
    if (fd < 0 || read(fd, cmdline, sizeof cmdline - 1) < 0) fatal("/proc/cmdline");
    close(fd);
}

static void load_modules(void) {
    FILE *list = fopen("/modules/order", "r");
    char name[200], path[256];
    while (list && fgets(name, sizeof name, list)) {
        name[strcspn(name, "\n")] = 0;
        snprintf(path, sizeof path, "/modules/%s", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) complain(path);
        close(fd);
    }
    if (list) fclose(list);
}

static void wait_for(const char *path) {
    for (int i = 0; i < 500 && access(path, F_OK) < 0; i++) sleep_until(now_ns() + TICK_NS);
}

static void set_address(int fd, struct ifreq *request, unsigned long what, const char *address) {
    struct sockaddr_in *in = (void *)&request->ifr_addr;
    memset(in, 0, sizeof *in);
    in->sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &in->sin_addr) != 1 || ioctl(fd, what, request) < 0) complain(address);
}

static void raise_link(int fd, const char *name) {
    struct ifreq request = {0};
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    ioctl(fd, SIOCGIFFLAGS, &request);
    request.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0) complain(name);
}

static void start_network(void) {
    char address[64], mask[64], target[64];
    struct ifreq request = {.ifr_name = "eth0"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    raise_link(fd, "lo");
    if (!parameter("address", address, sizeof address)) return;
    wait_for("/sys/class/net/eth0");
    set_address(fd, &request, SIOCSIFADDR, address);
    if (parameter("netmask", mask, sizeof mask)) set_address(fd, &request, SIOCSIFNETMASK, mask);
    raise_link(fd, "eth0");
    if (!parameter("observer", target, sizeof target)) return;
    observer.sin_family = AF_INET;
    observer.sin_port = htons(number_parameter("observer_port", 7000));
    if (inet_pton(AF_INET, target, &observer.sin_addr) == 1) beat_socket = fd;
}

static long choose_boot_id(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t state = t.tv_sec * SECOND_NS ^ t.tv_nsec ^ (__builtin_ia32_rdtsc() << 20) ^ 1;
    if (!state) state = 1;
    for (int i = 0; i < 8; i++) next_random(&state);
    snprintf(boot_id, sizeof boot_id, "%06llx", (unsigned long long)(state >> 40));
    return t.tv_sec;
}

int main(void) {
    char kind[16] = "zero", digits[2 * MARKER + 1];
    mount_all();
    make_crc_table();
    make_chunks();
    load_modules();
    open_line_channel();
    start_network();
    long booted_s = choose_boot_id();
    parameter("content", kind, sizeof kind);
    if (parameter("marker", digits, sizeof digits)) read_marker(digits, marker, MARKER), make_marker_pages();
    content = !strcmp(kind, "random") ? RANDOM : !strcmp(kind, "text") ? TEXT : ZERO;
    atomic_store(&writer_rate, number_parameter("rate", 1000));
    say("boot protocol=1 time_s=%ld beat_ms=%ld set_mib=%ld rate=%ld content=%s disk_ms=%ld disk_blocks=%ld", booted_s,
        number_parameter("beat_ms", 10), number_parameter("set_mib", 16), atomic_load(&writer_rate), kind,
        number_parameter("disk_ms", 100), number_parameter("disk_blocks", 256));
    start(heartbeat, NULL);
    make_pages();
    say("page-at %ld %llx", page_count - 1, physical_address(pages[page_count - 1]));
    start(memory_worker, NULL);
    start(command_listener, NULL);
    start(stream_listener, NULL);
    if (number_parameter("disk_ms", 100) > 0) {
        wait_for("/dev/vda");
        start(disk_worker, NULL);
    }
    for (;;)
        if (wait(NULL) < 0) pause();
}
