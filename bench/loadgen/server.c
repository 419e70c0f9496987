/* A paced SSE server: every request gets TOKENS events of 250 bytes, one each ITL, the first after
 * TTFT. Each event's text is the moments (CLOCK_MONOTONIC, ns) at which its request was read and at
 * which it was sent itself: as with real engines, events differ in nothing but their text. Prints
 * its port, which others may share: the kernel deals out their connections.
 * Usage: server TTFT_MS ITL_MS TOKENS [PORT] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 8192, EVENT = 250, REQUEST = 16384 };

struct stream {
    int used, active, left, filled;
    int64_t due, read_ns;
    char request[REQUEST];
};

static struct stream *streams[MAX_FD];
static int highest;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void drop(int fd) {
    close(fd);
    if (streams[fd]) memset(streams[fd], 0, offsetof(struct stream, request));
}

static void put(int fd, const char *data, int size) {
    if (send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) != size) drop(fd);
}

static void emit(int fd, struct stream *s, int tokens) {
    char event[EVENT + 1], wire[2048];
    int size = 0;
    if (s->left == tokens)
        size = sprintf(wire, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                             "Transfer-Encoding: chunked\r\n\r\n");
    int used = snprintf(event, sizeof event,
        "data: {\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1795326110,\"model\":"
        "\"m\",\"choices\":[{\"index\":0,\"text\":\" %016lld %016lld\",\"finish_reason\":%s}],\"usage\":null,"
        "\"pad\":\"",
        (long long)s->read_ns, (long long)now_ns(), s->left == 1 ? "\"length\"" : "null");
    memset(event + used, 'x', EVENT - 4 - used);
    memcpy(event + EVENT - 4, "\"}\n\n", 4);
    size += sprintf(wire + size, "%x\r\n", EVENT);
    memcpy(wire + size, event, EVENT);
    size += EVENT;
    size += sprintf(wire + size, "\r\n");
    if (--s->left == 0) {
        char usage[200];
        int u = sprintf(usage, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":16,"
                               "\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", tokens);
        size += sprintf(wire + size, "%x\r\n%s\r\n0\r\n\r\n", u, usage);
        s->active = 0;
    }
    put(fd, wire, size);
}

static void take(int fd, struct stream *s, int64_t ttft, int tokens) {
    ssize_t count = recv(fd, s->request + s->filled, REQUEST - 1 - s->filled, MSG_DONTWAIT);
    if (count <= 0) {
        if (count == 0 || errno != EAGAIN) drop(fd);
        return;
    }
    s->filled += count;
    s->request[s->filled] = 0;
    char *end = strstr(s->request, "\r\n\r\n");
    char *length = strcasestr(s->request, "content-length:");
    if (!end || !length) return;
    if (s->filled < end + 4 - s->request + atoi(length + 15)) return;
    s->filled = 0;
    s->read_ns = now_ns();
    s->due = s->read_ns + ttft;
    s->left = tokens;
    s->active = 1;
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 5) return 2;
    int64_t ttft = atof(argv[1]) * 1e6, itl = atof(argv[2]) * 1e6;
    int tokens = atoi(argv[3]), one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (argc == 5) at.sin_port = htons(atoi(argv[4]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
    if (bind(listener, (void *)&at, size) || listen(listener, 4096)) return 1;
    getsockname(listener, (void *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(ep, EPOLL_CTL_ADD, listener, &ev);
    for (;;) {
        int64_t now = now_ns(), next = now + 5000000;
        for (int fd = 0; fd <= highest; fd++) {
            struct stream *s = streams[fd];
            if (!s || !s->active) continue;
            if (s->due <= now) {
                s->due += itl;
                emit(fd, s, tokens);
            }
            if (s->active && s->due < next) next = s->due;
        }
        int64_t wait = next - now_ns();
        struct timespec t = {0, wait > 0 ? wait : 0};
        int count = epoll_pwait2(ep, events, 256, &t, NULL);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int c = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                if (c < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)) continue;
                if (c < 0 || c >= MAX_FD) {  /* its client would wait for ever */
                    fprintf(stderr, "server: cannot take another connection: %s\n",
                            c < 0 ? strerror(errno) : "too many");
                    return 1;
                }
                setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                if (!streams[c]) streams[c] = calloc(1, sizeof(struct stream));
                memset(streams[c], 0, sizeof(struct stream));
                streams[c]->used = 1;
                if (c > highest) highest = c;
                ev.events = EPOLLIN;
                ev.data.fd = c;
                epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev);
            } else if (streams[fd] && streams[fd]->used) {
                take(fd, streams[fd], ttft, tokens);
            }
        }
    }
}
