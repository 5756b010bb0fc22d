/* The load of the gateway benchmark, and the check of what comes back.
 *
 *   load --port P --path /v1/chat/completions --body FILE [--key K] [--conns N] [--seconds S] [--warmup S]
 *        [--rate R] [--stream CHUNKS] [--slow BYTES] [--leave]
 *
 * One thread, epoll. Closed loop unless --rate gives requests per second; an open loop whose connections are all busy
 * skips the request and counts it. --stream reads server-sent events and checks that each stream brings the chunks
 * #00000# to CHUNKS - 1, each once and in order, then [DONE]. --slow lets every connection read so many bytes per
 * second only. At the end what is in flight is waited for; with --leave, and with --slow, the connections are closed
 * in its midst instead. Prints one JSON object; counts are of the whole run, rates and times of what came after the
 * warm-up. Times are in microseconds from the moment of sending.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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

enum { HEAD, BODY, SIZE, DATA, DATA_END, TRAILER };
enum { BATCH = 256, MOST_ERRORS = 1000, DRAIN_S = 30, LINE = 4096 };

struct conn {
    int fd, busy, state, chunked, closes, status, done, next, events;
    size_t sent, left, head_used, line_used;
    uint64_t began, first;
    double credit;
    char head[8192], line[LINE];
};

static int port = 0, conns = 32, chunks = 0, leave = 0, poller;
static double rate = 0, seconds = 1.5, warmup = 0, slow = 0;
static const char *path = "/v1/chat/completions", *key = NULL, *body_file = NULL;
static char *request;
static size_t request_size;
static struct conn *all;
static uint64_t begin_at, from, until;
static int stopping;

static uint64_t n, n_window, events_total, events_window, errors, non200, skipped, lost, reordered, shorter, unfinished, reconnects;
static uint64_t bytes_total;
static uint64_t *times, *firsts; /* nanoseconds */
static size_t times_n, times_room, firsts_n, firsts_room;
static int last_status;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static void note(uint64_t **list, size_t *size, size_t *room, uint64_t ns) {
    if (*size == *room) *list = realloc(*list, (*room = *room ? *room * 2 : 4096) * sizeof **list);
    (*list)[(*size)++] = ns;
}

static void make_request(void) {
    FILE *f = fopen(body_file, "rb");
    if (!f) { perror(body_file); exit(2); }
    fseek(f, 0, SEEK_END);
    size_t size = (size_t)ftell(f);
    rewind(f);
    request = malloc(size + 1024);
    request_size = (size_t)sprintf(request, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                                            "content-length: %zu\r\n", path, port, size);
    if (key) request_size += (size_t)sprintf(request + request_size, "authorization: Bearer %s\r\n", key);
    request_size += (size_t)sprintf(request + request_size, "\r\n");
    if (fread(request + request_size, 1, size, f) != size) { perror(body_file); exit(2); }
    request_size += size;
    fclose(f);
}

static void fault(void) {
    if (++errors >= MOST_ERRORS) stopping = 2;
}

static void connect_to(struct conn *c) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1, small = 65536;
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (slow > 0) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    if (connect(c->fd, (struct sockaddr *)&there, sizeof there)) { perror("load: connect"); exit(1); }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event e = {.events = slow > 0 ? 0 : EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
    c->busy = 0;
}

static void push(struct conn *c);

static void reconnect(struct conn *c) {
    close(c->fd);
    reconnects++;
    connect_to(c);
    if (rate <= 0 && !stopping) push(c);
}

static void write_on(struct conn *c) {
    while (c->sent < request_size) {
        ssize_t k = send(c->fd, request + c->sent, request_size - c->sent, MSG_NOSIGNAL);
        if (k < 0) {
            if (errno != EAGAIN) return; /* what is wrong shows when reading */
            struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
            epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
            return;
        }
        c->sent += (size_t)k;
    }
}

static void push(struct conn *c) {
    c->busy = 1;
    c->state = HEAD;
    c->sent = c->head_used = c->line_used = c->left = 0;
    c->done = c->next = c->events = c->chunked = c->closes = c->status = 0;
    c->first = 0;
    c->began = now_ns();
    write_on(c);
}

static void event(struct conn *c) {
    c->line[c->line_used] = 0;
    if (memcmp(c->line, "data:", 5)) return;
    char *data = c->line + 5;
    while (*data == ' ') data++;
    if (!strcmp(data, "[DONE]")) { c->done = 1; return; }
    uint64_t now = now_ns();
    if (!c->first) {
        c->first = now;
        if (c->began >= from) note(&firsts, &firsts_n, &firsts_room, now - c->began);
    }
    for (char *at = data; (at = strchr(at, '#')); at++) {
        if (strlen(at) < 7 || at[6] != '#') continue;
        int number = atoi(at + 1);
        at += 6;
        if (number < c->next) reordered++;
        else lost += (uint64_t)(number - c->next);
        c->next = number + 1;
        c->events++;
        events_total++;
        if (now >= from && now < until) events_window++;
    }
}

static void text(struct conn *c, const char *at, size_t size) {
    bytes_total += size;
    if (!chunks) return;
    while (size) {
        const char *end = memchr(at, '\n', size);
        size_t part = end ? (size_t)(end - at) : size;
        if (c->line_used + part >= LINE) { fault(); c->line_used = 0; }
        else { memcpy(c->line + c->line_used, at, part); c->line_used += part; }
        if (!end) return;
        if (c->line_used && c->line[c->line_used - 1] == '\r') c->line_used--;
        if (c->line_used) event(c);
        c->line_used = 0;
        at = end + 1;
        size -= part + 1;
    }
}

static void finished(struct conn *c) {
    uint64_t now = now_ns();
    n++;
    if (c->status != 200) { non200++; last_status = c->status; }
    else if (chunks && (c->events != chunks || !c->done)) shorter++;
    if (now >= from && now < until) n_window++;
    if (c->began >= from && c->began < until) note(&times, &times_n, &times_room, now - c->began);
    c->busy = 0;
    if (c->closes) reconnect(c);
    else if (rate <= 0 && !stopping) push(c);
}

static int head_line(struct conn *c, char *line) {
    if (!strncasecmp(line, "content-length:", 15)) c->left = strtoul(line + 15, NULL, 10);
    else if (!strncasecmp(line, "transfer-encoding:", 18)) c->chunked = strcasestr(line, "chunked") != NULL;
    else if (!strncasecmp(line, "connection:", 11)) c->closes = strcasestr(line, "close") != NULL;
    else return 0;
    return 1;
}

static void heads(struct conn *c) {
    c->status = atoi(c->head + 9);
    for (char *line = strstr(c->head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n")) head_line(c, line + 2);
    c->state = c->status < 200 ? HEAD : c->chunked ? SIZE : BODY;
    c->head_used = 0;
}

/* Take in what came. */
static void parse(struct conn *c, const char *at, size_t size) {
    while (size) {
        if (c->state == BODY || c->state == DATA) {
            size_t part = c->left < size ? c->left : size;
            text(c, at, part);
            at += part;
            size -= part;
            c->left -= part;
            if (c->left) return;
            if (c->state == BODY) { finished(c); return; }
            c->state = DATA_END;
            continue;
        }
        /* the head, or a line of the chunked coding */
        if (c->head_used + 1 >= sizeof c->head) { fault(); return; }
        c->head[c->head_used++] = *at++;
        size--;
        if (c->head[c->head_used - 1] != '\n') continue;
        c->head[c->head_used] = 0;
        if (c->state == HEAD) {
            if (c->head_used < 4 || memcmp(c->head + c->head_used - 4, "\r\n\r\n", 4)) continue;
            heads(c);
            if (c->state == BODY && !c->left) { finished(c); return; }
            continue;
        }
        size_t used = c->head_used;
        c->head_used = 0;
        if (c->state == SIZE) {
            c->left = strtoul(c->head, NULL, 16);
            c->state = c->left ? DATA : TRAILER;
        } else if (c->state == DATA_END) c->state = SIZE;
        else if (used <= 2) { finished(c); return; }
    }
}

static void readable(struct conn *c, size_t most) {
    static char buffer[262144];
    ssize_t k = recv(c->fd, buffer, most < sizeof buffer ? most : sizeof buffer, 0);
    if (k > 0) {
        if (c->busy) parse(c, buffer, (size_t)k);
        else fault();               /* bytes that nobody asked for */
        c->credit -= (double)k;
        return;
    }
    if (k < 0 && errno == EAGAIN) return;
    if (c->busy) fault();
    if (stopping < 2) reconnect(c);
}

static void slow_reads(uint64_t now) {
    static uint64_t last;
    double passed = last ? (double)(now - last) / 1e9 : 0;
    last = now;
    for (int i = 0; i < conns; i++) {
        struct conn *c = &all[i];
        c->credit += slow * passed;
        if (c->credit >= 1024) readable(c, (size_t)c->credit);
    }
}

static int by_size(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double at_share(const uint64_t *list, size_t size, double share) {
    return size ? (double)list[(size_t)(share * (double)(size - 1) + 0.5)] / 1e3 : 0;
}

static void print(void) {
    qsort(times, times_n, sizeof *times, by_size);
    qsort(firsts, firsts_n, sizeof *firsts, by_size);
    printf("{\"n\":%lu,\"rps\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"first_p50_us\":%.1f,"
           "\"events\":%lu,\"events_per_s\":%.1f,\"bytes\":%lu,\"errors\":%lu,\"non200\":%lu,\"last_status\":%d,"
           "\"skipped\":%lu,\"lost\":%lu,\"reordered\":%lu,\"short\":%lu,\"unfinished\":%lu,\"reconnects\":%lu}\n",
           n, (double)n_window / seconds, at_share(times, times_n, .5), at_share(times, times_n, .9),
           at_share(times, times_n, .99), at_share(firsts, firsts_n, .5), events_total, (double)events_window / seconds,
           bytes_total, errors, non200, last_status, skipped, lost, reordered, shorter, unfinished, reconnects);
}

static void options(int argc, char **argv) {
    static const struct option names[] = {
        {"port", 1, 0, 'p'}, {"path", 1, 0, 'u'}, {"body", 1, 0, 'b'}, {"key", 1, 0, 'k'}, {"conns", 1, 0, 'c'},
        {"seconds", 1, 0, 's'}, {"warmup", 1, 0, 'w'}, {"rate", 1, 0, 'r'}, {"stream", 1, 0, 't'}, {"slow", 1, 0, 'z'},
        {"leave", 0, 0, 'l'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", names, NULL)) != -1;) switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'b': body_file = optarg; break;
        case 'k': key = optarg; break;
        case 'c': conns = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'w': warmup = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 't': chunks = atoi(optarg); break;
        case 'z': slow = atof(optarg); break;
        case 'l': leave = 1; break;
        default: exit(2);
    }
    if (!port || !body_file) { fprintf(stderr, "load: --port and --body are needed\n"); exit(2); }
}

/* Send what is due of the open loop; returns when the next request is. */
static uint64_t due(uint64_t next, uint64_t now) {
    for (; next <= now && next < until; next += (uint64_t)(1e9 / rate)) {
        int i = 0;
        while (i < conns && all[i].busy) i++;
        if (i == conns) skipped++;
        else push(&all[i]);
    }
    return next;
}

static uint64_t in_flight(void) {
    uint64_t busy = 0;
    for (int i = 0; i < conns; i++) busy += (uint64_t)all[i].busy;
    return busy;
}

int main(int argc, char **argv) {
    options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000);
    make_request();
    poller = epoll_create1(0);
    all = calloc((size_t)conns, sizeof *all);
    for (int i = 0; i < conns; i++) connect_to(&all[i]);
    begin_at = now_ns();
    from = begin_at + (uint64_t)(warmup * 1e9);
    until = from + (uint64_t)(seconds * 1e9);
    uint64_t next = begin_at;
    if (rate <= 0) for (int i = 0; i < conns; i++) push(&all[i]);
    for (struct epoll_event events[BATCH]; stopping < 2;) {
        uint64_t now = now_ns();
        if (now >= until) {
            if (leave || slow > 0) break;
            stopping = 1;
            if (!in_flight()) break;
            if (now > until + DRAIN_S * 1000000000ULL) { unfinished = in_flight(); break; }
        }
        if (rate > 0) next = due(next, now);
        uint64_t wake = rate > 0 && next < until ? next : now < until ? until : now + 50000000ULL;
        if (slow > 0) { slow_reads(now); wake = now + 10000000ULL; }
        now = now_ns();
        uint64_t gap = wake > now ? wake - now : 0;
        struct timespec wait = {(time_t)(gap / 1000000000ULL), (long)(gap % 1000000000ULL)};
        int k = epoll_pwait2(poller, events, BATCH, &wait, NULL);
        for (int i = 0; i < k; i++) {
            struct conn *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                write_on(c);
                if (c->sent == request_size) {
                    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
                    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
                }
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c, (size_t)-1);
        }
    }
    for (int i = 0; i < conns; i++) close(all[i].fd);
    print();
    return 0;
}
