/* The floor: the least that a client must do. A closed loop of N streams over epoll; finds each
 * event in what was read, and the stamps in it. No JSON, one parser state a stream.
 * Usage: floor PORT STREAMS SECONDS. Prints one JSON object. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 8192, BUCKETS = 200000 };

static char *request;
static int request_size;
static int64_t sent_at[MAX_FD], chunks, reads;
static char waiting[MAX_FD], tail[MAX_FD][512];
static int tail_size[MAX_FD];
static uint32_t lag[BUCKETS];  /* by microsecond */
static int64_t ttft_error[1 << 20], lags;
static int errors_kept;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static double cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void ask(int fd) {
    if (send(fd, request, request_size, MSG_NOSIGNAL) != request_size) exit(1);
    sent_at[fd] = now_ns();
    waiting[fd] = 1;
}

static void event(int fd, char *data, int64_t now) {
    char *text = strstr(data, "\"text\":\" ");
    if (!text) {
        if (strstr(data, "[DONE]")) ask(fd);
        return;
    }
    char *after;
    int64_t read_at = strtoll(text + 9, &after, 10), server = strtoll(after, NULL, 10);
    int64_t us = (now - server) / 1000;
    lag[us < 0 ? 0 : us >= BUCKETS ? BUCKETS - 1 : us]++;
    lags++;
    chunks++;
    if (waiting[fd]) {
        waiting[fd] = 0;
        if (errors_kept < 1 << 20) ttft_error[errors_kept++] = (now - sent_at[fd]) - (server - read_at);
    }
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static double lag_ms(double share) {
    int64_t seen = 0;
    for (int i = 0; i < BUCKETS; i++)
        if ((seen += lag[i]) >= share * lags) return i / 1000.0;
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int streams = atoi(argv[2]), one = 1;
    double seconds = atof(argv[3]);
    const char *body = "{\"model\":\"m\",\"prompt\":[128,129,130],\"max_tokens\":125,\"stream\":true}";
    request_size = asprintf(&request, "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int ep = epoll_create1(0);
    struct epoll_event events[512];
    for (int i = 0; i < streams; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (void *)&at, sizeof at)) return 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev);
        ask(fd);
    }
    static char buffer[1 << 16];
    double warm = 2, cpu0 = 0;
    int64_t begin = now_ns(), chunks0 = 0, measured = 0, closed = 0;
    for (;;) {
        int64_t now = now_ns();
        if (!measured && now - begin > warm * 1e9) {
            measured = now;
            cpu0 = cpu();
            chunks0 = chunks;
            reads = 0;
            lags = errors_kept = 0;
            memset(lag, 0, sizeof lag);
        }
        if (measured && now - measured > seconds * 1e9) break;
        int count = epoll_wait(ep, events, 512, 100);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd, kept = tail_size[fd];
            memcpy(buffer, tail[fd], kept);
            ssize_t got = recv(fd, buffer + kept, sizeof buffer - 1 - kept, MSG_DONTWAIT);
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            if (got <= 0) {  /* or it would be found ready for ever, and spin */
                close(fd);
                closed++;
                continue;
            }
            reads++;
            int64_t at_ns = now_ns();
            buffer[kept + got] = 0;
            char *from = buffer, *end;
            while ((end = strstr(from, "\n\n"))) {
                *end = 0;
                char *data = strstr(from, "data: ");
                if (data) event(fd, data + 6, at_ns);
                from = end + 2;
            }
            tail_size[fd] = buffer + kept + got - from;
            if (tail_size[fd] >= 512) exit(1);
            memcpy(tail[fd], from, tail_size[fd]);
        }
    }
    double span = (now_ns() - measured) / 1e9, used = cpu() - cpu0;
    int64_t n = chunks - chunks0;
    qsort(ttft_error, errors_kept, sizeof *ttft_error, ascending);
    printf("{\"chunks_per_s\": %.0f, \"us_per_chunk\": %.2f, \"cpu\": %.3f, \"chunks_per_read\": %.2f, \"lag_p50_ms\": %.4f, "
           "\"lag_p99_ms\": %.4f, \"ttft_error_p50_ms\": %.4f, \"ttft_error_p99_ms\": %.4f, \"closed\": %lld}\n",
           n / span, 1e6 * used / (n ? n : 1), used / span, (double)n / (reads ? reads : 1),
           lags ? lag_ms(0.5) : -1, lags ? lag_ms(0.99) : -1,
           errors_kept ? ttft_error[errors_kept / 2] / 1e6 : -1,
           errors_kept ? ttft_error[errors_kept * 99 / 100] / 1e6 : -1, (long long)closed);
}
