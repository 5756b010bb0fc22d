/* The upstream of the gateway benchmark: an OpenAI-compatible engine that costs next to nothing.
 *
 *   mock PORT
 *
 * HTTP/1.1 with keep-alive, one thread, epoll. The mode of a stream follows from the model's name, which also routers
 * that write the body anew keep: `mock` sends STREAM_CHUNKS chunks back to back, `mock-paced` one per TICK_NS *
 * BUCKETS = 10 ms at a random phase, `mock-long` LONG_CHUNKS in the same way, `mock-flood` FLOOD_CHUNKS as fast as
 * the reader takes them. Every chunk carries its number in the text, `#00012#`. Without `stream` the answer is a
 * completion of 582 bytes. GET /stats tells what goes on; /v1/models lists its modes as models; all else is a small JSON.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STREAM_CHUNKS = 64, LONG_CHUNKS = 300, FLOOD_CHUNKS = 60000, BUCKETS = 40, BATCH = 256 };
#define TICK_NS 250000ULL
#define COMPLETION 582

struct conn {
    int fd, closing;
    char *in;
    size_t used, room;
    char out[1024];                 /* what is being written: one chunk, or a whole plain answer */
    size_t out_len, out_at;
    int streaming, paced, next, allowed, total, waits_out;
    struct conn *before, *after;    /* in its bucket of the wheel, or among the closed ones */
};

static int poller;
static struct conn wheel[BUCKETS];
static int paced_streams;
static uint64_t tick;               /* ticks that the wheel has made */
static uint64_t requests, active, aborted, completed, cut;
static char completion[COMPLETION + 1];
static struct conn *dead;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void make_completion(void) {
    const char *head = "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1700000000,"
                       "\"model\":\"mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"";
    const char *tail = "\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":180,\"completion_tokens\":64,"
                       "\"total_tokens\":244}}";
    const char *words = "Press the reset button for five seconds and wait until the lamp is green again. ";
    size_t at = strlen(head), end = COMPLETION - strlen(tail);
    memcpy(completion, head, at);
    for (size_t i = 0; at < end; i++, at++) completion[at] = words[i % strlen(words)];
    completion[end - 1] = '.';
    memcpy(completion + end, tail, strlen(tail) + 1);
}

static void unpace(struct conn *c) {
    if (!c->paced) return;
    c->paced = 0;
    paced_streams--;
    c->before->after = c->after;
    c->after->before = c->before;
}

static void drop(struct conn *c) {
    if (c->closing) return;
    c->closing = 1;
    if (c->streaming) { active--; aborted++; }
    unpace(c);
    close(c->fd);
    free(c->in);
    c->after = dead;                /* freed after the batch of events, which may still name it */
    dead = c;
}

static void want_out(struct conn *c, int on) {
    if (c->waits_out == on) return;
    c->waits_out = on;
    struct epoll_event e = {.events = EPOLLIN | (on ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
}

static size_t chunk_text(struct conn *c, char *out) {
    static const char *object = "{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\","
                                "\"created\":1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":";
    int n = c->next, last = n == c->total - 1;
    char event[512];
    int size = snprintf(event, sizeof event, "data: %s{%s\"content\":\"#%05d#\"},\"finish_reason\":%s}]%s}\n\n%s", object,
                        n ? "" : "\"role\":\"assistant\",", n, last ? "\"stop\"" : "null",
                        last ? ",\"usage\":{\"prompt_tokens\":180,\"completion_tokens\":64,\"total_tokens\":244}" : "",
                        last ? "data: [DONE]\n\n" : "");
    return (size_t)sprintf(out, "%x\r\n%s\r\n%s", size, event, last ? "0\r\n\r\n" : "");
}

static void take(struct conn *c);

/* Write what may be written; one send per chunk. */
static void pump(struct conn *c) {
    while (!c->closing) {
        if (c->out_at == c->out_len) {
            if (!c->streaming || c->next >= c->allowed) break;
            c->out_len = chunk_text(c, c->out);
            c->out_at = 0;
            c->next++;
        }
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) { cut++; want_out(c, 1); return; }
            drop(c);
            return;
        }
        c->out_at += (size_t)n;
        if (c->streaming && c->next == c->total && c->out_at == c->out_len) {
            c->streaming = 0;
            active--;
            completed++;
            unpace(c);
        }
    }
    if (!c->closing) want_out(c, 0);
}

static void put(struct conn *c, const char *type, const char *body, size_t size) {
    c->out_len = (size_t)sprintf(c->out, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n", type, size);
    memcpy(c->out + c->out_len, body, size);
    c->out_len += size;
    c->out_at = 0;
    pump(c);
}

static void start_stream(struct conn *c, const char *model, size_t size) {
    int paced = 0;
    c->total = STREAM_CHUNKS;
    if (size == 10 && !memcmp(model, "mock-paced", 10)) paced = 1;
    else if (size == 9 && !memcmp(model, "mock-long", 9)) { paced = 1; c->total = LONG_CHUNKS; }
    else if (size == 10 && !memcmp(model, "mock-flood", 10)) c->total = FLOOD_CHUNKS;
    c->streaming = 1;
    active++;
    c->next = 0;
    c->allowed = 0;
    c->out_len = (size_t)sprintf(c->out, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                         "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n");
    c->out_at = 0;
    pump(c);                        /* the head goes first, as engines do it */
    if (c->closing) return;
    if (!paced) {
        c->allowed = c->total;
        pump(c);
        return;
    }
    if (!paced_streams++) tick = now_ns() / TICK_NS;
    c->paced = 1;
    struct conn *bucket = &wheel[rand() % BUCKETS];
    c->after = bucket->after;
    c->before = bucket;
    c->after->before = c;
    bucket->after = c;
}

/* The value of a string field, wherever in the object it stands. */
static const char *field(const char *body, size_t size, const char *name, size_t *length) {
    const char *end = body + size, *at = memmem(body, size, name, strlen(name));
    if (!at) return NULL;
    at += strlen(name);
    while (at < end && (*at == ' ' || *at == ':')) at++;
    if (at < end && *at == '"') at++;
    const char *stop = at;
    while (stop < end && *stop != '"' && *stop != ',' && *stop != '}') stop++;
    *length = (size_t)(stop - at);
    return at;
}

static void handle(struct conn *c, const char *head, const char *body, size_t size) {
    if (!memcmp(head, "GET ", 4)) {
        static const char *models[] = {"mock", "mock-paced", "mock-long", "mock-flood"};
        char text[512];
        int length;
        if (!memcmp(head + 4, "/v1/models ", 11)) {
            length = sprintf(text, "{\"object\":\"list\",\"data\":[");
            for (int i = 0; i < 4; i++)
                length += sprintf(text + length, "%s{\"id\":\"%s\",\"object\":\"model\",\"created\":1,\"owned_by\":\"mock\"}",
                                  i ? "," : "", models[i]);
            length += sprintf(text + length, "]}");
        } else if (!memcmp(head + 4, "/stats ", 7))
            length = sprintf(text, "{\"requests\":%lu,\"active\":%lu,\"aborted\":%lu,\"completed\":%lu,\"held_back\":%lu}",
                             requests, active, aborted, completed, cut);
        else
            length = sprintf(text, "{\"status\":\"ok\",\"model_path\":\"mock\"}");
        put(c, "application/json", text, (size_t)length);
        return;
    }
    requests++;
    size_t model_size = 0, stream_size = 0;
    const char *model = field(body, size, "\"model\"", &model_size);
    const char *stream = field(body, size, "\"stream\"", &stream_size);
    if (stream && stream_size == 4 && !memcmp(stream, "true", 4)) start_stream(c, model ? model : "", model_size);
    else put(c, "application/json", completion, COMPLETION);
}

/* Undo chunked coding in place: the bytes that it took and, in `length`, the body; 0 while some are missing. */
static size_t unchunk(char *at, size_t size, size_t *length) {
    size_t taken = 0, made = 0;
    for (;;) {
        char *end = memmem(at + taken, size - taken, "\r\n", 2);
        if (!end) return 0;
        size_t n = strtoul(at + taken, NULL, 16), next = (size_t)(end - at) + 2;
        if (next + n + 2 > size) return 0;
        if (n) memmove(at + made, at + next, n);
        made += n;
        taken = next + n + 2;
        if (!n) { *length = made; return taken; }
    }
}

/* Handle every whole request that has come. A client that waits for its answer sends the next one after it. */
static void take(struct conn *c) {
    while (!c->closing && c->used && !c->streaming) {
        c->in[c->used] = 0;
        char *end = memmem(c->in, c->used, "\r\n\r\n", 4);
        if (!end) return;
        size_t head = (size_t)(end - c->in) + 4, size = 0, taken = 0;
        char saved = c->in[head - 1];
        c->in[head - 1] = 0;
        char *length = strcasestr(c->in, "\r\ncontent-length:"), *coding = strcasestr(c->in, "\r\ntransfer-encoding: chunked");
        char *expect = strcasestr(c->in, "\r\nexpect: 100");
        c->in[head - 1] = saved;
        if (length) size = taken = strtoul(length + 17, NULL, 10);
        if (expect && c->used == head) {
            if (send(c->fd, "HTTP/1.1 100 Continue\r\n\r\n", 25, MSG_NOSIGNAL) < 0) drop(c);
            else memcpy(expect, "\r\nx-xpect", 9);
            return;
        }
        if (coding) {
            /* Whole or not is known only by going through it: work on a copy until it is whole. */
            char *copy = malloc(c->used - head + 1);
            memcpy(copy, c->in + head, c->used - head);
            copy[c->used - head] = 0;
            taken = unchunk(copy, c->used - head, &size);
            if (taken) handle(c, c->in, copy, size);
            free(copy);
            if (!taken) return;
        } else {
            if (c->used < head + taken) return;
            handle(c, c->in, c->in + head, size);
        }
        if (c->closing) return;
        c->used -= head + taken;
        memmove(c->in, c->in + head + taken, c->used);
    }
}

static void receive(struct conn *c) {
    if (c->room - c->used < 4096) c->in = realloc(c->in, (c->room *= 4) + 1);
    ssize_t n = recv(c->fd, c->in + c->used, c->room - c->used, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) drop(c);
        return;
    }
    c->used += (size_t)n;
    take(c);
}

static void welcome(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        int one = 1, buffer = 131072;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        /* What a gateway leaves unread shall stay with the engine, and not fill megabytes of the kernel. */
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
        struct conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->in = malloc((c->room = 16384) + 1);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

/* Turn the wheel up to now: whoever sits in a bucket that has passed may send one chunk more. */
static void turn(void) {
    for (uint64_t until = now_ns() / TICK_NS; paced_streams && tick < until; tick++) {
        struct conn *bucket = &wheel[tick % BUCKETS];
        for (struct conn *c = bucket->after, *after; c != bucket; c = after) {
            after = c->after;
            c->allowed++;
            pump(c);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 2) return fprintf(stderr, "usage: mock PORT\n"), 2;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_TIMERSLACK, 1000);
    make_completion();
    for (int i = 0; i < BUCKETS; i++) wheel[i].before = wheel[i].after = &wheel[i];
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) return perror("mock"), 1;
    poller = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[BATCH];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        struct timespec wait = {0, (long)(TICK_NS - now_ns() % TICK_NS)};
        int n = epoll_pwait2(poller, events, BATCH, paced_streams ? &wait : NULL, NULL);
        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;
            if (!c) { welcome(listener); continue; }
            if (!c->closing && events[i].events & EPOLLOUT) pump(c);
            if (!c->closing && !c->streaming) take(c);
            if (!c->closing && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
        turn();
        while (dead) {
            struct conn *next = dead->after;
            free(dead);
            dead = next;
        }
    }
}
