/* wsload - a WebSocket (RFC 6455) load client and measuring tool.
 *
 * One thread, one epoll set, non-blocking sockets, hand-made masked frames.  It
 * shares no code with any server it measures and links nothing but libc:
 *
 *     gcc -O2 -Wall -Wextra -o wsload wsload.c
 *
 *     wsload echo      --port P [--conns N] [--depth D] [--size S] [--duration T]
 *     wsload fanout    --port P [--conns N] [--size S] [--window W | --rate R]
 *     wsload publish   --port P [--conns N] [--depth D] [--size S] [--duration T | --count K]
 *     wsload replay    --port P [--conns N] [--from OFF]
 *     wsload handshake --port P [--conns PARALLEL] [--count K]
 *     wsload idle      --port P [--conns N] --pid PID
 *
 * It prints exactly one JSON object on stdout; `wsload --help` lists every flag.
 * Exit status: 0 measured, 1 the run failed (JSON has "error"), 2 bad usage.
 *
 * What each workload does
 *   echo       every connection keeps D messages in flight; a reply to one sends the
 *              next.  Latency is send()->parsed reply, matched in FIFO order.  Every
 *              payload starts with a 16-digit sequence number that must come back in
 *              order, with the right length and opcode; --verify compares all bytes.  After
 *              the window every message still in flight must come back, or the run fails.
 *   fanout     N subscribers and one publisher send the join message; the publisher
 *              then publishes a message that carries its send time (%T).  A delivery
 *              is any message to a subscriber that holds that time, found after the
 *              key "t0" whatever the spacing; a "t0" that is not a whole number, or lies
 *              in the future, or does not rise from delivery to delivery, fails the run.  Closed loop: at most W publications are
 *              undelivered (--window).  Open loop: --rate R publications a second,
 *              and latency counts from the time the schedule asked for, so a late
 *              publisher cannot hide a slow server (no coordinated omission).
 *   publish    every connection keeps D publishes of the vixws wire protocol in flight and
 *              counts their "$ack" by "ref", in any order.  A ref answered twice, a ref
 *              never sent and an "$err" fail the run, and so does a publish still not
 *              answered at its end.  Latency is send()->parsed $ack.  With --pub-joins
 *              every connection joins its room first and must get each message of that
 *              room once, at offsets that rise by one.
 *   replay     asks for the room's epoch and head with "$position", then every connection
 *              joins with "since" and reads until "$live".  Offsets must rise by exactly
 *              one from --from on; "$gap", "$reset", "$err", "recovered":false and a
 *              "$live" at another offset fail the run.  Latency is $join->$live.
 *   handshake  PARALLEL connections at a time: connect, upgrade, check the 101 and its
 *              Sec-WebSocket-Accept, close; K in all.
 *   idle       opens N connections, leaves them alone and compares the server's RSS.
 *
 * Server CPU is the running time of every --pid (repeatable: workers), all threads, read
 * at both ends of the measured window: /proc/PID/task/TID/schedstat, which counts ns, or
 * utime+stime of /proc/PID/stat (10 ms ticks) with --stat-cpu or where that is missing.
 * On a noisy machine CPU per message is steadier than messages per second.
 * client.cpu_pct near 100 means that the client, not the server, was the limit.
 *
 * Not spoken: TLS and permessage-deflate (never offered, so a server must not use it).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OP_CONT = 0, OP_TEXT = 1, OP_BIN = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };
enum { ST_CONNECTING, ST_UPGRADING, ST_OPEN, ST_CLOSING, ST_DEAD };
enum { MODE_ECHO, MODE_FANOUT, MODE_HANDSHAKE, MODE_IDLE, MODE_PUBLISH, MODE_REPLAY };

#define READ_BUF (1 << 18)
#define MAX_PIDS 64
#define MAX_HEAD 16384
#define SEQ_MOD 10000000000000000u             /* sequence numbers have 16 digits */

typedef struct { uint8_t *p; size_t len, cap; } buf_t;
typedef struct { const uint8_t *p, *end; } span_t;   /* bytes that somebody else holds */
typedef struct { uint64_t seq, sent_at; bool answered; } slot_t;

typedef struct {
    int fd, state, index;
    bool want_write, stalled;
    char key[25];              /* Sec-WebSocket-Key sent, base64 */
    buf_t in, out, frag;       /* unparsed input, unsent output, message being gathered */
    int frag_op;               /* opcode of the message being gathered, 0 if none */
    uint64_t sent_seq, recv_seq;
    uint64_t *sent_at;         /* echo: ring of send times, one per message in flight */
    slot_t *slots;             /* publish: one per message in flight; slot i sends i, i+D, i+2D... */
    bool joined, live;         /* publish, replay: $joined and $live have come */
    uint64_t off, copies;      /* the last offset (fanout: stamp), which must rise; copies received */
} conn_t;

/* ---- options ------------------------------------------------------------------ */
static struct {
    int mode, port, conns, depth, window, stalled, rooms, hs_parallel;
    size_t size;
    uint64_t from;
    double duration, warmup, rate, settle, timeout, hold, drain;
    long count;
    const char *host, *path, *hello, *join, *pub, *header, *subprotocol, *prefix, *suffix;
    bool stat_cpu, binary, verify, clean_close, pub_joins, mid, count_given;
    int pids[MAX_PIDS], npids;
} o = {
    .host = "127.0.0.1", .path = "/", .conns = 1, .depth = 1, .window = 1, .size = 125,
    .duration = 3, .warmup = 0.5, .settle = 0.3, .drain = 2, .timeout = 10, .count = 2000, .rooms = 1,
    .hs_parallel = 32, .hello = "", .header = "", .prefix = "", .suffix = "", .clean_close = true,
};

/* What --join and --pub are when not given: an application's own messages for fanout, the wire
 * protocol's for publish and replay.  The stamp is "t0" because "ts" is the envelope's own. */
static const char FANOUT_JOIN[] = "{\"type\":\"room.join\",\"payload\":{\"room\":\"%R\"}}";
static const char FANOUT_PUB[] =
    "{\"type\":\"chat.message\",\"payload\":{\"room\":\"%R\",\"user\":\"pub\",\"t0\":%T,\"text\":\"%P\"}}";
static const char WIRE_JOIN[] = "{\"type\":\"$join\",\"ref\":\"join\",\"room\":\"%R\"}";
static const char WIRE_PUB[] =
    "{\"type\":\"bench.message\",\"room\":\"%R\",\"ref\":\"%S\",\"payload\":{\"text\":\"%P\"}}";
static const char WIRE_PUB_MID[] =
    "{\"type\":\"bench.message\",\"room\":\"%R\",\"ref\":\"%S\",\"mid\":\"%M\",\"payload\":{\"text\":\"%P\"}}";

static const char HELP[] =
"usage: wsload echo|fanout|publish|replay|handshake|idle --port P [flags]\n"
"  --host ADDR         IPv4 address (127.0.0.1)       --path PATH     request target (/)\n"
"  --conns N           connections; fanout: subscribers; handshake: how many at a time\n"
"  --duration T        measured seconds (3)           --warmup W      unmeasured seconds first (0.5)\n"
"  --size S            payload bytes (125)            --binary        binary messages, not text\n"
"  --pid PID           a server process to charge CPU and RSS to; repeatable\n"
"  --header 'N: v'     one extra request header       --subprotocol P offer a subprotocol\n"
"  --hello MSG         text message sent once on open (say a socket.io '40')\n"
"  --settle S          wait after opening/joining, ignoring what arrives (0.3)\n"
"  --timeout S         give up when nothing at all moves for S seconds (10)\n"
"  --hs-parallel N     handshakes in flight while opening --conns (32)\n"
"  --stat-cpu          server CPU from /proc/PID/stat (10 ms ticks), not schedstat\n"
"echo:      --depth D  messages in flight per connection (1)    --verify  compare every byte\n"
"           --prefix A --suffix B  text around the payload, part of --size\n"
"fanout:    --window W publications in flight, closed loop (1)  --rate R  publications/s, open loop\n"
"           --join TPL --pub TPL   templates: %R room, %T time in ns, %P padding to --size,\n"
"                        %S sequence number, %M idempotency key; a stamp is read after \"t0\"\n"
"           --rooms R  spread subscribers over R rooms (1); publications take turns\n"
"           --stalled K  K more subscribers that join and then never read\n"
"           --drain S    after the window wait at most S seconds for deliveries owed (2); the\n"
"                        rest is reported as \"undelivered\"\n"
"           --pub-joins  the publisher joins room 0 as well (its copies are not counted)\n"
"publish:   --depth D  publishes in flight per connection (1)    --mid  send an idempotency key\n"
"           --count K  publishes in all, no warm-up (else --duration)   --rooms R as above\n"
"           --pub-joins  every connection joins its room and counts its copies; --drain as above\n"
"replay:    --from OFF offset to join with (0); the room is r0\n"
"handshake: --count K  handshakes in all (2000)                 --rst  drop the link, no close frame\n"
"idle:      --hold S   keep them open S seconds before the second reading (1)\n";

/* ---- small helpers ------------------------------------------------------------ */
static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));
static void fail(const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 32) *c = '\'';
    printf("{\"error\":\"%s\"}\n", text);
    exit(1);
}

static void reserve(buf_t *b, size_t extra) {
    if (b->len + extra <= b->cap) return;
    size_t cap = b->cap ? b->cap : 512;
    while (cap < b->len + extra) cap *= 2;
    b->p = realloc(b->p, cap);
    if (!b->p) fail("out of memory");
    b->cap = cap;
}

static void append(buf_t *b, const void *data, size_t n) {
    reserve(b, n);
    memcpy(b->p + b->len, data, n);
    b->len += n;
}

static uint32_t rnd(void) {                    /* xorshift64*: masking keys, not secrets */
    static uint64_t s;
    if (!s) s = now_ns() ^ ((uint64_t)getpid() << 32) ^ 0x9e3779b97f4a7c15u;
    s ^= s >> 12; s ^= s << 25; s ^= s >> 27;
    return (uint32_t)((s * 2685821657736338717u) >> 32);
}

/* ---- latency histogram: 64 steps per power of two, so within 1.6% -------------- */
#define SUB 64
static uint64_t hist[64 * SUB], hist_n, hist_max;

static void hist_add(uint64_t ns) {
    unsigned e = 0;
    uint64_t v = ns;
    while (v >= 2 * SUB) { v >>= 1; e++; }
    hist[e * SUB + v]++;                       /* v < 2*SUB; e=0 uses the first 2*SUB cells */
    hist_n++;
    if (ns > hist_max) hist_max = ns;
}

static double hist_us(double q) {
    uint64_t want = (uint64_t)(q * (double)hist_n), seen = 0;
    if (!hist_n) return 0;
    if (want >= hist_n) want = hist_n - 1;
    for (unsigned i = 0; i < 64 * SUB; i++) {
        seen += hist[i];
        if (seen > want) {
            unsigned e = i < 2 * SUB ? 0 : i / SUB - 1;
            double v = (double)(i - e * SUB) + 0.5;
            v *= (double)(1ull << e);
            return (v < (double)hist_max ? v : (double)hist_max) / 1000.0;   /* the cell's middle may lie above all in it */
        }
    }
    return (double)hist_max / 1000.0;
}

/* ---- SHA-1 and base64, for Sec-WebSocket-Accept -------------------------------- */
static uint32_t rol(uint32_t x, int n) { return (x << n) | (x >> (32 - n)); }

static void sha1(const uint8_t *msg, size_t n, uint8_t out[20]) {   /* n <= 119 */
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    uint8_t block[128] = {0};
    size_t total = n + 9 <= 64 ? 64 : 128;
    memcpy(block, msg, n);
    block[n] = 0x80;
    for (int i = 0; i < 8; i++) block[total - 1 - i] = (uint8_t)((uint64_t)n * 8 >> (8 * i));
    for (size_t at = 0; at < total; at += 64) {
        uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
        for (int i = 0; i < 16; i++) {
            const uint8_t *q = block + at + 4 * i;
            w[i] = (uint32_t)q[0] << 24 | (uint32_t)q[1] << 16 | (uint32_t)q[2] << 8 | q[3];
        }
        for (int i = 16; i < 80; i++) w[i] = rol(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (int i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20) f = (b & c) | (~b & d), k = 0x5a827999;
            else if (i < 40) f = b ^ c ^ d, k = 0x6ed9eba1;
            else if (i < 60) f = (b & c) | (b & d) | (c & d), k = 0x8f1bbcdc;
            else f = b ^ c ^ d, k = 0xca62c1d6;
            uint32_t t = rol(a, 5) + f + e + k + w[i];
            e = d; d = c; c = rol(b, 30); b = a; a = t;
        }
        h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
    }
    for (int i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const uint8_t *in, size_t n, char *out) {
    static const char T[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)in[i] << 16 | (i + 1 < n ? in[i + 1] << 8 : 0) | (i + 2 < n ? in[i + 2] : 0);
        *out++ = T[v >> 18];
        *out++ = T[v >> 12 & 63];
        *out++ = i + 1 < n ? T[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? T[v & 63] : '=';
    }
    *out = 0;
}

/* ---- reading JSON, as far as the wire protocol needs it ------------------------------ */
static span_t skip_space(span_t s) {
    while (s.p < s.end && (*s.p == ' ' || *s.p == '\n' || *s.p == '\r' || *s.p == '\t')) s.p++;
    return s;
}

/* Past the string that begins at s.p (its opening quote), or NULL where it does not end. */
static const uint8_t *skip_string(span_t s) {
    for (const uint8_t *p = s.p + 1; p < s.end; p++) {
        if (*p == '\\') p++;
        else if (*p == '"') return p + 1;
    }
    return NULL;
}

/* Past any value, or NULL where it does not end.  Brackets are counted, not matched by kind. */
static const uint8_t *skip_value(span_t s) {
    int depth = 0;
    while (s.p < s.end) {
        uint8_t ch = *s.p;
        if (ch == '"') {
            if (!(s.p = skip_string(s))) return NULL;
            if (!depth) return s.p;
            continue;
        }
        if (!depth && (ch == ',' || ch == '}' || ch == ']' || ch <= ' ')) return s.p;
        s.p++;
        if (ch == '{' || ch == '[') depth++;
        else if ((ch == '}' || ch == ']') && --depth == 0) return s.p;
    }
    return NULL;
}

/* The value of one key of an object, quotes of a string included; an empty span if it has none. */
static span_t member(span_t object, const char *key) {
    size_t n = strlen(key);
    span_t s = skip_space(object), none = {NULL, NULL};
    if (s.p == s.end || *s.p++ != '{') return none;
    for (;;) {
        s = skip_space(s);
        if (s.p == s.end || *s.p != '"') return none;
        span_t name = {s.p + 1, skip_string(s)};
        if (!name.end) return none;
        s.p = name.end--;
        s = skip_space(s);
        if (s.p == s.end || *s.p++ != ':') return none;
        s = skip_space(s);
        span_t value = {s.p, skip_value(s)};
        if (!value.end) return none;
        if ((size_t)(name.end - name.p) == n && !memcmp(name.p, key, n)) return value;
        s.p = value.end;
        s = skip_space(s);
        if (s.p == s.end || *s.p++ != ',') return none;
    }
}

static bool same(span_t value, const char *text) {
    size_t n = strlen(text);
    return (size_t)(value.end - value.p) == n && !memcmp(value.p, text, n);
}

/* A whole number, all of the span; with quotes around it where quoted says so. */
static bool whole_number(span_t s, bool quoted, uint64_t *v) {
    if (quoted) {
        if (s.end - s.p < 2 || *s.p != '"' || s.end[-1] != '"') return false;
        s.p++;
        s.end--;
    }
    if (s.p == s.end || s.end - s.p > 19) return false;
    for (*v = 0; s.p < s.end; s.p++) {
        if (*s.p < '0' || *s.p > '9') return false;
        *v = *v * 10 + (uint64_t)(*s.p - '0');
    }
    return true;
}

/* The start of some bytes as a string, for an error message. */
static const char *quote(span_t s) {
    static char text[200];
    snprintf(text, sizeof text, "%.*s", s.p ? (int)(s.end - s.p < 180 ? s.end - s.p : 180) : 0, s.p ? (const char *)s.p : "");
    return text;
}

/* ---- the server's CPU time and memory ------------------------------------------ */

/* Seconds all living threads of one process have run, to the ns; -1 if the kernel does not say. */
static double sched_cpu(int pid) {
    char name[300];
    double ns = 0;
    snprintf(name, sizeof name, "/proc/%d/task", pid);
    DIR *d = opendir(name);
    if (!d) fail("no process %d", pid);
    for (struct dirent *e; (e = readdir(d));) {
        unsigned long long v;
        if (e->d_name[0] == '.') continue;
        snprintf(name, sizeof name, "/proc/%d/task/%s/schedstat", pid, e->d_name);
        FILE *f = fopen(name, "r");
        if (!f) continue;                      /* the thread ended meanwhile */
        bool ok = fscanf(f, "%llu", &v) == 1;
        fclose(f);
        if (!ok) { closedir(d); return -1; }
        ns += (double)v;
    }
    closedir(d);
    return ns > 0 ? ns / 1e9 : -1;
}

static double server_cpu(void) {               /* seconds, all --pid together */
    double ticks = 0, precise = 0;
    for (int i = 0; i < o.npids; i++) {
        char name[64], line[1024];
        double s = o.stat_cpu ? -1 : sched_cpu(o.pids[i]);
        if (s >= 0) { precise += s; continue; }
        snprintf(name, sizeof name, "/proc/%d/stat", o.pids[i]);
        FILE *f = fopen(name, "r");
        if (!f) fail("no process %d", o.pids[i]);
        size_t n = fread(line, 1, sizeof line - 1, f);
        fclose(f);
        line[n] = 0;
        char *p = strrchr(line, ')');          /* the name may hold spaces and brackets */
        unsigned long user, sys;
        if (!p || sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) != 2)
            fail("cannot read %s", name);
        ticks += (double)(user + sys);
    }
    return precise + ticks / (double)sysconf(_SC_CLK_TCK);
}

static long server_rss_kib(void) {
    long total = 0;
    for (int i = 0; i < o.npids; i++) {
        char name[64], line[256];
        long v = 0;
        snprintf(name, sizeof name, "/proc/%d/status", o.pids[i]);
        FILE *f = fopen(name, "r");
        if (!f) fail("no process %d", o.pids[i]);
        while (fgets(line, sizeof line, f))
            if (sscanf(line, "VmRSS: %ld", &v) == 1) break;
        fclose(f);
        total += v;
    }
    return total;
}

static double client_cpu(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* ---- connections ----------------------------------------------------------------- */
static int ep;
static conn_t *conns;
static int nconns, n_open, n_opening;
static uint64_t last_progress;
static bool measuring, started, draining;
static uint64_t msgs_in, bytes_in, hs_done, hs_started, pubs, deliveries, delivered_total;
static char *padding;                          /* the echo payload, but for its sequence number */
static size_t seq_at, seq_len;                 /* where in it that number goes */

static void on_message(conn_t *c, int op, const uint8_t *p, size_t n);
static void on_open(conn_t *c);
static void on_closed(conn_t *c);

static void watch(conn_t *c, bool write) {
    struct epoll_event e = {.events = EPOLLIN | (write ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e)) fail("epoll_ctl: %s", strerror(errno));
    c->want_write = write;
}

static void flush(conn_t *c) {
    size_t at = 0;
    while (at < c->out.len) {
        ssize_t n = send(c->fd, c->out.p + at, c->out.len - at, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) break;
            if (errno == EINTR) continue;
            if (c->state == ST_CLOSING) { on_closed(c); return; }
            fail("connection %d: send: %s", c->index, strerror(errno));
        }
        at += (size_t)n;
    }
    if (at) memmove(c->out.p, c->out.p + at, c->out.len - at), c->out.len -= at;
    if ((c->out.len > 0) != c->want_write) watch(c, c->out.len > 0);
}

/* Append one masked frame; flush() sends it. */
static void put_frame(conn_t *c, int op, const void *payload, size_t n) {
    uint8_t head[14];
    size_t h = 2;
    head[0] = (uint8_t)(0x80 | op);
    if (n < 126) head[1] = (uint8_t)(0x80 | n);
    else if (n < 65536) head[1] = 0x80 | 126, head[2] = (uint8_t)(n >> 8), head[3] = (uint8_t)n, h = 4;
    else {
        head[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) head[2 + i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
        h = 10;
    }
    uint32_t m = rnd();
    memcpy(head + h, &m, 4);
    h += 4;
    append(&c->out, head, h);
    reserve(&c->out, n);
    uint8_t *dst = c->out.p + c->out.len;
    const uint8_t *src = payload;
    uint64_t m8 = (uint64_t)m << 32 | m, w;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) memcpy(&w, src + i, 8), w ^= m8, memcpy(dst + i, &w, 8);
    for (; i < n; i++) dst[i] = src[i] ^ ((uint8_t *)&m)[i & 3];
    c->out.len += n;
}

static void dial(conn_t *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o.port)};
    int one = 1;
    if (inet_pton(AF_INET, o.host, &a.sin_addr) != 1) fail("bad --host %s", o.host);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&a, sizeof a) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->state = ST_CONNECTING;
    c->in.len = c->out.len = c->frag.len = 0;
    c->frag_op = 0;
    c->want_write = true;
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e)) fail("epoll_ctl: %s", strerror(errno));
    n_opening++;
    hs_started++;
}

static void send_request(conn_t *c) {
    uint8_t raw[16];
    char text[2048];
    for (int i = 0; i < 4; i++) { uint32_t v = rnd(); memcpy(raw + 4 * i, &v, 4); }
    base64(raw, 16, c->key);
    int n = snprintf(text, sizeof text,
        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s%s%s%s%s\r\n",
        o.path, o.host, o.port, c->key,
        o.subprotocol ? "Sec-WebSocket-Protocol: " : "", o.subprotocol ? o.subprotocol : "",
        o.subprotocol ? "\r\n" : "", o.header, *o.header ? "\r\n" : "");
    if (n < 0 || (size_t)n >= sizeof text) fail("request too long");
    append(&c->out, text, (size_t)n);
    c->state = ST_UPGRADING;
    flush(c);
}

/* The value of a header in a NUL-terminated response head, or NULL; not copied. */
static const char *header_value(const char *head, const char *name) {
    size_t n = strlen(name);
    for (const char *p = strstr(head, "\r\n"); p; p = strstr(p + 2, "\r\n"))
        if (!strncasecmp(p + 2, name, n) && p[2 + n] == ':') {
            p += 3 + n;
            return p + strspn(p, " \t");
        }
    return NULL;
}

/* Bytes of the response head used, or 0 if it is not complete yet. */
static size_t take_response(conn_t *c, const uint8_t *p, size_t n) {
    const uint8_t *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) {
        if (n > MAX_HEAD) fail("response head over %d bytes", MAX_HEAD);
        return 0;
    }
    size_t used = (size_t)(end - p) + 4;
    char head[MAX_HEAD + 8], want[64], guid[64];
    uint8_t digest[20];
    if (used > MAX_HEAD) fail("response head over %d bytes", MAX_HEAD);
    memcpy(head, p, used);
    head[used] = 0;
    if (strncmp(head, "HTTP/1.1 101", 12)) fail("upgrade refused: %.60s", head);
    snprintf(guid, sizeof guid, "%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", c->key);
    sha1((uint8_t *)guid, strlen(guid), digest);
    base64(digest, 20, want);
    const char *got = header_value(head, "Sec-WebSocket-Accept");
    if (!got || strncmp(got, want, strlen(want))) fail("wrong Sec-WebSocket-Accept");
    if (header_value(head, "Sec-WebSocket-Extensions")) fail("server chose an extension never offered");
    c->state = ST_OPEN;
    n_opening--;
    n_open++;
    hs_done++;
    return used;
}

static void take_frame(conn_t *c, int op, bool fin, const uint8_t *p, size_t n) {
    if (op >= 8) {
        if (!fin || n > 125) fail("malformed control frame");
        if (op == OP_PING) { put_frame(c, OP_PONG, p, n); return; }
        if (op == OP_CLOSE) {
            if (c->state == ST_CLOSING) { on_closed(c); return; }
            fail("connection %d: closed by the server, code %d", c->index, n >= 2 ? p[0] << 8 | p[1] : 1005);
        }
        return;
    }
    if ((op == OP_CONT) != (c->frag_op != 0)) fail("fragmentation out of order");
    if (op != OP_CONT && op != OP_TEXT && op != OP_BIN) fail("unknown opcode %d", op);
    if (fin && op != OP_CONT) { on_message(c, op, p, n); return; }
    if (op != OP_CONT) c->frag_op = op;
    append(&c->frag, p, n);
    if (fin) {
        int kind = c->frag_op;
        c->frag_op = 0;
        on_message(c, kind, c->frag.p, c->frag.len);
        c->frag.len = 0;
    }
}

/* Parse what is complete in p[0..n); return the bytes used. */
static size_t parse(conn_t *c, const uint8_t *p, size_t n) {
    size_t at = 0;
    if (c->state == ST_UPGRADING) {
        at = take_response(c, p, n);
        if (!at) return 0;
        on_open(c);
    }
    while (c->state == ST_OPEN || c->state == ST_CLOSING) {
        size_t left = n - at, h = 2;
        if (left < 2) break;
        const uint8_t *f = p + at;
        if (f[0] & 0x70) fail("reserved bits set: %02x", f[0]);
        if (f[1] & 0x80) fail("masked frame from the server");
        uint64_t len = f[1];
        if (len == 126) {
            if (left < 4) break;
            len = (uint64_t)f[2] << 8 | f[3];
            h = 4;
            if (len < 126) fail("length not in its shortest form");
        } else if (len == 127) {
            if (left < 10) break;
            len = 0;
            for (int i = 0; i < 8; i++) len = len << 8 | f[2 + i];
            h = 10;
            if (len < 65536) fail("length not in its shortest form");
        }
        if (len > (1ull << 31)) fail("frame over 2 GiB");
        if (left - h < len) break;
        at += h + len;
        take_frame(c, f[0] & 15, f[0] & 0x80, f + h, len);
    }
    return at;
}

static void on_readable(conn_t *c) {
    static uint8_t buf[READ_BUF];
    ssize_t n = recv(c->fd, buf, sizeof buf, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        if (c->state == ST_CLOSING) { on_closed(c); return; }
        fail("connection %d: %s", c->index, n ? strerror(errno) : "end of stream");
    }
    last_progress = now_ns();
    if (measuring) bytes_in += (uint64_t)n;
    if (c->in.len) {                           /* a frame was cut: join the pieces */
        append(&c->in, buf, (size_t)n);
        size_t used = parse(c, c->in.p, c->in.len);
        if (c->state == ST_DEAD) return;
        memmove(c->in.p, c->in.p + used, c->in.len - used);
        c->in.len -= used;
    } else {
        size_t used = parse(c, buf, (size_t)n);
        if (c->state == ST_DEAD) return;
        if (used < (size_t)n) append(&c->in, buf + used, (size_t)n - used);
    }
    if (c->out.len && !c->want_write) flush(c);
}

static void turn(int timeout_ms) {
    struct epoll_event ev[512];
    int n = epoll_wait(ep, ev, 512, timeout_ms);
    for (int i = 0; i < n; i++) {
        conn_t *c = ev[i].data.ptr;
        if (c->state == ST_DEAD) continue;
        if (c->state == ST_CONNECTING) {
            int err = 0;
            socklen_t len = sizeof err;
            getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
            if (err) fail("connect: %s", strerror(err));
            if (ev[i].events & EPOLLOUT) send_request(c);
            continue;
        }
        if (ev[i].events & EPOLLOUT) flush(c);
        if (c->state != ST_DEAD && ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) on_readable(c);
    }
    if (now_ns() - last_progress > (uint64_t)(o.timeout * 1e9))
        fail("nothing moved for %g s (open %d, messages %" PRIu64 ", deliveries %" PRIu64 ")",
             o.timeout, n_open, msgs_in, delivered_total);
}

static void run_for(double seconds) {
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);
    while (now_ns() < end) { turn(1); last_progress = now_ns(); }
}

static void open_all(int want) {
    while (n_open < want) {
        while (nconns < want && n_opening < o.hs_parallel) {
            conns[nconns].index = nconns;
            dial(&conns[nconns++]);
        }
        turn(100);
    }
}

/* ---- echo --------------------------------------------------------------------------- */
static void send_echo(conn_t *c) {
    char seq[17];
    snprintf(seq, sizeof seq, "%016" PRIu64, c->sent_seq % SEQ_MOD);
    memcpy(padding + seq_at, seq, seq_len);
    c->sent_at[c->sent_seq++ % (uint64_t)o.depth] = now_ns();
    put_frame(c, o.binary ? OP_BIN : OP_TEXT, padding, o.size);
}

static void check_echo(conn_t *c, int op, const uint8_t *p, size_t n) {
    char seq[17];
    snprintf(seq, sizeof seq, "%016" PRIu64, c->recv_seq % SEQ_MOD);
    if (n != o.size || op != (o.binary ? OP_BIN : OP_TEXT) || memcmp(p + seq_at, seq, seq_len))
        fail("connection %d: echo %" PRIu64 " came back different (%zu bytes)", c->index, c->recv_seq, n);
    size_t rest = seq_at + seq_len;
    if (o.verify && (memcmp(p, padding, seq_at) || memcmp(p + rest, padding + rest, n - rest)))
        fail("echo payload differs");
    if (measuring) hist_add(now_ns() - c->sent_at[c->recv_seq % (uint64_t)o.depth]);
    c->recv_seq++;
}

/* ---- fan-out -------------------------------------------------------------------------- */
typedef struct { int room; uint64_t time, seq; const char *mid; size_t size; } fill_t;

/* Write a template out: %R room, %T time, %S sequence number, %M key, %P padding up to size. */
static void expand(buf_t *b, const char *tpl, fill_t f) {
    size_t pad_at = SIZE_MAX;
    char text[32];
    b->len = 0;
    for (const char *p = tpl; *p; p++) {
        if (*p != '%' || !p[1]) { append(b, p, 1); continue; }
        p++;
        if (*p == 'R') append(b, text, (size_t)snprintf(text, sizeof text, "r%d", f.room));
        else if (*p == 'T') append(b, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, f.time));
        else if (*p == 'S') append(b, text, (size_t)snprintf(text, sizeof text, "%" PRIu64, f.seq));
        else if (*p == 'M' && f.mid) append(b, f.mid, strlen(f.mid));
        else if (*p == 'P') pad_at = b->len;
        else append(b, p, 1);
    }
    if (pad_at != SIZE_MAX && b->len < f.size) {
        size_t pad = f.size - b->len, tail = b->len - pad_at;
        reserve(b, pad);
        memmove(b->p + pad_at + pad, b->p + pad_at, tail);
        memset(b->p + pad_at, 'x', pad);
        b->len += pad;
    }
}

/* Every connection up to n joins its room. */
static void send_joins(int n) {
    buf_t b = {0};
    for (int i = 0; i < n; i++) {
        expand(&b, o.join, (fill_t){.room = i % o.rooms});
        put_frame(&conns[i], OP_TEXT, b.p, b.len);
        flush(&conns[i]);
    }
    free(b.p);
}

static uint64_t expected;                      /* deliveries owed for all publications so far */

static void publish(uint64_t ts) {
    static buf_t b;
    uint64_t room = pubs % (uint64_t)o.rooms;
    expected += (uint64_t)(o.conns / o.rooms) + (room < (uint64_t)(o.conns % o.rooms));
    conn_t *c = &conns[nconns - 1];            /* the publisher is the last connection */
    expand(&b, o.pub, (fill_t){.room = (int)room, .time = ts, .seq = pubs, .size = o.size});
    put_frame(c, OP_TEXT, b.p, b.len);
    pubs++;
}

static void take_delivery(conn_t *c, const uint8_t *p, size_t n) {
    if (c->index >= o.conns) return;           /* the publisher's own copy */
    const uint8_t *k = memmem(p, n, "\"t0\"", 4);
    if (!k) return;
    span_t value = skip_space((span_t){k + 4, p + n});
    if (value.p < value.end && *value.p == ':') value.p++;
    value = skip_space(value);
    const uint8_t *end = skip_value(value);
    uint64_t ts = 0, now = now_ns();
    value.end = end ? end : value.end;
    if (!whole_number(value, false, &ts)) fail("connection %d: the stamp t0 is not a whole number: %s", c->index, quote(value));
    if (ts > now) fail("connection %d: the stamp t0 lies in the future: %" PRIu64, c->index, ts);
    if (ts <= c->off) fail("connection %d: a publication came twice or out of order", c->index);
    c->off = ts;
    delivered_total++;
    if (measuring) { deliveries++; hist_add(now - ts); }
}

/* ---- publish ------------------------------------------------------------------------------ */
static uint64_t sent_total, acked_total, acked;
static uint64_t *room_pubs;                    /* acked publishes per room: copies owed to each member */
static uint64_t run_id;                        /* makes idempotency keys new in every run */

static void send_publish(conn_t *c, slot_t *slot, uint64_t seq) {
    static buf_t b;
    char mid[64];
    if (o.count_given && sent_total == (uint64_t)o.count) return;
    snprintf(mid, sizeof mid, "%" PRIx64 "-%d-%" PRIu64, run_id, c->index, seq);
    expand(&b, o.pub, (fill_t){.room = c->index % o.rooms, .time = now_ns(), .seq = seq, .mid = mid, .size = o.size});
    *slot = (slot_t){.seq = seq, .sent_at = now_ns()};
    put_frame(c, OP_TEXT, b.p, b.len);
    sent_total++;
}

static void take_ack(conn_t *c, span_t message) {
    uint64_t seq;
    if (!whole_number(member(message, "ref"), true, &seq)) fail("connection %d: an answer to no ref of ours: %s", c->index, quote(message));
    slot_t *slot = &c->slots[seq % (uint64_t)o.depth];
    if (!slot->sent_at || seq > slot->seq) fail("connection %d: an answer to ref %" PRIu64 ", which was never sent", c->index, seq);
    if (slot->answered || seq != slot->seq) fail("connection %d: ref %" PRIu64 " was answered twice", c->index, seq);
    slot->answered = true;
    acked_total++;
    room_pubs[c->index % o.rooms]++;
    if (measuring) { acked++; hist_add(now_ns() - slot->sent_at); }
    if (!draining) send_publish(c, slot, seq + (uint64_t)o.depth);
}

/* A room's message: its offset must follow the last one. */
static void take_offset(conn_t *c, span_t message) {
    uint64_t off;
    if (!whole_number(member(message, "off"), false, &off)) fail("connection %d: a message without a whole off: %s", c->index, quote(message));
    if (off != c->off + 1) fail("connection %d: offset %" PRIu64 " after %" PRIu64, c->index, off, c->off);
    c->off = off;
}

static void take_publish(conn_t *c, span_t message) {
    span_t type = member(message, "type"), payload = member(message, "payload");
    if (same(type, "\"$ack\"")) take_ack(c, message);
    else if (same(type, "\"bench.message\"")) {
        if (!c->joined) fail("connection %d: a message of a room it did not join", c->index);
        take_offset(c, message);
        c->copies++;
        if (measuring) deliveries++;
    } else if (same(type, "\"$joined\"")) {
        if (!whole_number(member(payload, "from"), false, &c->off)) fail("connection %d: joined without a position: %s", c->index, quote(message));
        c->joined = true;
    } else if (same(type, "\"$err\"") || same(type, "\"$gap\"") || same(type, "\"$reset\""))
        fail("connection %d: %s", c->index, quote(message));
}

/* ---- replay ------------------------------------------------------------------------------- */
static char room_ep[80];                       /* the epoch, as JSON with its quotes */
static uint64_t room_head;
static int n_live;

static void take_replay(conn_t *c, span_t message) {
    span_t type = member(message, "type"), payload = member(message, "payload"), ep_now = member(message, "ep");
    uint64_t off;
    if (same(type, "\"$position\"")) {
        span_t found = member(payload, "ep");
        if (found.end - found.p < 2 || *found.p != '"' || (size_t)(found.end - found.p) >= sizeof room_ep ||
            !whole_number(member(payload, "head"), false, &room_head))
            fail("no ep and head in %s", quote(message));
        memcpy(room_ep, found.p, (size_t)(found.end - found.p));
    } else if (same(type, "\"$joined\"")) {
        if (!same(member(payload, "recovered"), "true")) fail("connection %d: not recovered: %s", c->index, quote(message));
        c->joined = true;
    } else if (same(type, "\"$live\"")) {
        if (c->live || !c->joined || !whole_number(member(payload, "off"), false, &off) || off != c->off || off < room_head)
            fail("connection %d: at offset %" PRIu64 " of %" PRIu64 ": %s", c->index, c->off, room_head, quote(message));
        c->live = true;
        n_live++;
        hist_add(now_ns() - c->sent_at[0]);
    } else if (ep_now.p) {
        if (!same(ep_now, room_ep)) fail("connection %d: a message of another epoch: %s", c->index, quote(message));
        take_offset(c, message);
        deliveries++;
    } else if (same(type, "\"$err\"") || same(type, "\"$gap\"") || same(type, "\"$reset\"") || same(type, "\"$kicked\""))
        fail("connection %d: %s", c->index, quote(message));
}

/* ---- events --------------------------------------------------------------------------- */
static void on_open(conn_t *c) {
    last_progress = now_ns();
    if (*o.hello) put_frame(c, OP_TEXT, o.hello, strlen(o.hello));
    if (o.mode == MODE_HANDSHAKE) {
        c->state = ST_CLOSING;
        if (o.clean_close) put_frame(c, OP_CLOSE, "\x03\xe8", 2);
        else on_closed(c);
    }
}

static void on_closed(conn_t *c) {
    struct linger l = {.l_onoff = 1, .l_linger = 0};   /* reset: no TIME_WAIT on our side */
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(c->fd);
    c->state = ST_DEAD;
    c->in.len = c->out.len = 0;
    n_open--;
}

static void on_message(conn_t *c, int op, const uint8_t *p, size_t n) {
    if (o.mode == MODE_PUBLISH) take_publish(c, (span_t){p, p + n});
    if (o.mode == MODE_REPLAY) take_replay(c, (span_t){p, p + n});
    if (!started) return;
    if (measuring) msgs_in++;
    if (o.mode == MODE_ECHO) { check_echo(c, op, p, n); if (!draining) send_echo(c); }
    else if (o.mode == MODE_FANOUT) take_delivery(c, p, n);
}

/* ---- report ---------------------------------------------------------------------------- */
static double t_wall, t_cpu, t_ccpu;

static void begin(void) { t_cpu = server_cpu(); t_ccpu = client_cpu(); t_wall = (double)now_ns() / 1e9; measuring = true; }

static void end_window(void) {
    measuring = false;
    t_wall = (double)now_ns() / 1e9 - t_wall;
    t_cpu = server_cpu() - t_cpu;
    t_ccpu = client_cpu() - t_ccpu;
}

static void print_tail(uint64_t events, const char *unit) {
    if (hist_n)
        printf(",\"latency_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}",
               hist_us(.5), hist_us(.9), hist_us(.99), hist_us(.999), (double)hist_max / 1e3);
    if (o.npids) {
        printf(",\"server\":{\"cpu_pct\":%.1f,\"rss_kib\":%ld", 100 * t_cpu / t_wall, server_rss_kib());
        if (events) printf(",\"cpu_us_per_%s\":%.3f", unit, 1e6 * t_cpu / (double)events);
        printf("}");
    }
    printf(",\"client\":{\"cpu_pct\":%.1f}}\n", 100 * t_ccpu / t_wall);
}

static void run_echo(void) {
    open_all(o.conns);
    run_for(o.settle);
    started = true;
    for (int i = 0; i < o.conns; i++) {
        conns[i].sent_at = calloc((size_t)o.depth, sizeof(uint64_t));
        for (int d = 0; d < o.depth; d++) send_echo(&conns[i]);
        flush(&conns[i]);
    }
    for (uint64_t t = now_ns() + (uint64_t)(o.warmup * 1e9); now_ns() < t;) turn(10);
    begin();
    for (uint64_t t = now_ns() + (uint64_t)(o.duration * 1e9); now_ns() < t;) turn(10);
    end_window();
    draining = true;                           /* every message sent must still come back */
    for (int i = 0; i < o.conns; i++)
        while (conns[i].recv_seq < conns[i].sent_seq) turn(100);
    printf("{\"mode\":\"echo\",\"conns\":%d,\"depth\":%d,\"size\":%zu,\"seconds\":%.3f,\"messages\":%" PRIu64
           ",\"msgs_per_s\":%.1f,\"mib_per_s\":%.1f", o.conns, o.depth, o.size, t_wall, msgs_in,
           (double)msgs_in / t_wall, (double)bytes_in / t_wall / 1048576);
    print_tail(msgs_in, "msg");
}

static void run_fanout(void) {
    int subs = o.conns, all = o.conns + o.stalled + 1;
    open_all(all);
    run_for(o.settle);                         /* let any greeting arrive first */
    send_joins(all - 1);
    if (o.pub_joins) {
        buf_t b = {0};
        expand(&b, o.join, (fill_t){.room = 0});
        put_frame(&conns[all - 1], OP_TEXT, b.p, b.len);
        flush(&conns[all - 1]);
        free(b.p);
    }
    run_for(o.settle + subs / 5000.0);
    for (int i = subs; i < all - 1; i++) {
        conns[i].stalled = true;
        epoll_ctl(ep, EPOLL_CTL_DEL, conns[i].fd, NULL);
    }
    started = true;
    conn_t *pub = &conns[nconns - 1];
    uint64_t t0 = now_ns(), t1 = t0 + (uint64_t)(o.warmup * 1e9), t2 = t1 + (uint64_t)(o.duration * 1e9);
    uint64_t pubs_before = 0, pubs_in_window;
    for (uint64_t t; (t = now_ns()) < t2;) {
        if (!measuring && t >= t1) { begin(); pubs_before = pubs; }
        int wait = 10;
        if (o.rate > 0) {
            uint64_t due;
            while ((due = t0 + (uint64_t)((double)pubs * 1e9 / o.rate)) <= t) publish(due);
            wait = (due - t) / 1000000 < 10 ? (int)((due - t) / 1000000) : 10;
        } else
            while (expected < delivered_total + (uint64_t)o.window * (uint64_t)(subs / o.rooms)) publish(now_ns());
        if (pub->out.len && !pub->want_write) flush(pub);
        turn(wait);
    }
    end_window();
    pubs_in_window = pubs - pubs_before;
    for (uint64_t end = now_ns() + (uint64_t)(o.drain * 1e9); delivered_total < expected && now_ns() < end;) {
        turn(10);
        last_progress = now_ns();
    }
    printf("{\"mode\":\"fanout\",\"subscribers\":%d,\"stalled\":%d,\"rooms\":%d,\"size\":%zu,\"window\":%d,\"rate\":%g"
           ",\"seconds\":%.3f,\"publications\":%" PRIu64 ",\"deliveries\":%" PRIu64 ",\"deliveries_per_s\":%.1f"
           ",\"publications_per_s\":%.1f,\"undelivered\":%" PRId64, subs, o.stalled, o.rooms, o.size, o.window, o.rate,
           t_wall, pubs_in_window, deliveries, (double)deliveries / t_wall, (double)pubs_in_window / t_wall,
           (int64_t)(expected - delivered_total));
    print_tail(deliveries, "delivery");
}

static uint64_t copies_owed(void) {
    uint64_t owed = 0;
    for (int i = 0; i < o.conns; i++)
        if (conns[i].joined) owed += room_pubs[i % o.rooms] - conns[i].copies;
    return owed;
}

static void run_publish(void) {
    room_pubs = calloc((size_t)o.rooms, sizeof *room_pubs);
    run_id = now_ns() ^ (uint64_t)getpid() << 40;
    open_all(o.conns);
    run_for(o.settle);
    if (o.pub_joins) {
        send_joins(o.conns);
        for (int i = 0; i < o.conns; i++)
            while (!conns[i].joined) turn(100);
    }
    started = true;
    if (o.count_given) begin();
    for (int i = 0; i < o.conns; i++) {
        conns[i].slots = calloc((size_t)o.depth, sizeof(slot_t));
        if (!room_pubs || !conns[i].slots) fail("out of memory");
        for (int d = 0; d < o.depth; d++) send_publish(&conns[i], &conns[i].slots[d], (uint64_t)d);
        flush(&conns[i]);
    }
    if (o.count_given)
        while (acked_total < (uint64_t)o.count) turn(10);
    else {
        for (uint64_t t = now_ns() + (uint64_t)(o.warmup * 1e9); now_ns() < t;) turn(10);
        begin();
        for (uint64_t t = now_ns() + (uint64_t)(o.duration * 1e9); now_ns() < t;) turn(10);
    }
    end_window();
    draining = true;                           /* every publish must still be answered, once */
    while (acked_total < sent_total) turn(100);
    for (uint64_t end = now_ns() + (uint64_t)(o.drain * 1e9); copies_owed() && now_ns() < end;) {
        turn(10);
        last_progress = now_ns();
    }
    run_for(0.05);                             /* an answer too many would come now */
    printf("{\"mode\":\"publish\",\"conns\":%d,\"depth\":%d,\"rooms\":%d,\"size\":%zu,\"seconds\":%.3f,\"publishes\":%" PRIu64
           ",\"publishes_per_s\":%.1f,\"deliveries\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"undelivered\":%" PRId64,
           o.conns, o.depth, o.rooms, o.size, t_wall, acked, (double)acked / t_wall, deliveries, acked_total,
           (int64_t)copies_owed());
    print_tail(acked, "publish");
}

static void run_replay(void) {
    char text[300];
    open_all(o.conns);
    run_for(o.settle);
    int n = snprintf(text, sizeof text, "{\"type\":\"$position\",\"ref\":\"position\",\"room\":\"r0\"}");
    put_frame(&conns[0], OP_TEXT, text, (size_t)n);
    flush(&conns[0]);
    while (!*room_ep) turn(100);
    if (o.from >= room_head) fail("nothing to replay: the room's head is %" PRIu64 ", --from %" PRIu64, room_head, o.from);
    n = snprintf(text, sizeof text, "{\"type\":\"$join\",\"ref\":\"join\",\"room\":\"r0\",\"payload\":{\"since\":{\"ep\":%s,\"off\":%" PRIu64 "}}}",
                 room_ep, o.from);
    started = true;
    begin();
    for (int i = 0; i < o.conns; i++) {
        conns[i].off = o.from;
        conns[i].sent_at = malloc(sizeof(uint64_t));
        if (!conns[i].sent_at) fail("out of memory");
        conns[i].sent_at[0] = now_ns();
        put_frame(&conns[i], OP_TEXT, text, (size_t)n);
        flush(&conns[i]);
    }
    while (n_live < o.conns) turn(100);
    end_window();
    printf("{\"mode\":\"replay\",\"conns\":%d,\"head\":%" PRIu64 ",\"seconds\":%.3f,\"deliveries\":%" PRIu64 ",\"deliveries_per_s\":%.1f",
           o.conns, room_head, t_wall, deliveries, (double)deliveries / t_wall);
    print_tail(deliveries, "delivery");
}

static void run_handshake(void) {
    begin();
    nconns = o.conns;
    for (int i = 0; i < o.conns; i++) conns[i].state = ST_DEAD, conns[i].index = i;
    while (hs_done < (uint64_t)o.count || n_open > 0) {
        for (int i = 0; i < o.conns && hs_started < (uint64_t)o.count; i++)
            if (conns[i].state == ST_DEAD) dial(&conns[i]);
        turn(100);
    }
    end_window();
    printf("{\"mode\":\"handshake\",\"parallel\":%d,\"handshakes\":%" PRIu64 ",\"seconds\":%.3f,\"handshakes_per_s\":%.1f",
           o.conns, hs_done, t_wall, (double)hs_done / t_wall);
    print_tail(hs_done, "handshake");
}

static void run_idle(void) {
    if (!o.npids) fail("idle needs --pid");
    long before = server_rss_kib();
    begin();
    open_all(o.conns);
    double opened = (double)now_ns() / 1e9 - t_wall;
    run_for(o.hold);
    end_window();
    long after = server_rss_kib();
    printf("{\"mode\":\"idle\",\"conns\":%d,\"open_seconds\":%.3f,\"rss_before_kib\":%ld,\"rss_after_kib\":%ld,\"kib_per_conn\":%.2f",
           o.conns, opened, before, after, (double)(after - before) / o.conns);
    print_tail(0, "");
}

/* ---- command line ----------------------------------------------------------------------- */
static double number(const char *name, const char *s, double low, double high) {
    char *end;
    double v = strtod(s, &end);
    if (*end || end == s || v < low || v > high) {
        fprintf(stderr, "wsload: --%s must be a number from %g to %g\n", name, low, high);
        exit(2);
    }
    return v;
}

int main(int argc, char **argv) {
    enum { HOST = 256, PORT, PATH, CONNS, DEPTH, SIZE, DUR, WARM, PID, HEADER, SUBP, HELLO, SETTLE, TIMEOUT, HSP,
           VERIFY, BINARY, WINDOW, RATE, JOIN, PUB, ROOMS, STALLED, PUBJ, COUNT, RST, HOLD,
           PREFIX, SUFFIX, STATCPU, DRAIN, MID, FROM, USAGE };
    static const struct option longs[] = {
        {"host", 1, 0, HOST}, {"port", 1, 0, PORT}, {"path", 1, 0, PATH}, {"conns", 1, 0, CONNS},
        {"depth", 1, 0, DEPTH}, {"size", 1, 0, SIZE}, {"duration", 1, 0, DUR}, {"warmup", 1, 0, WARM},
        {"pid", 1, 0, PID}, {"header", 1, 0, HEADER}, {"subprotocol", 1, 0, SUBP}, {"hello", 1, 0, HELLO},
        {"settle", 1, 0, SETTLE}, {"timeout", 1, 0, TIMEOUT}, {"hs-parallel", 1, 0, HSP},
        {"verify", 0, 0, VERIFY}, {"binary", 0, 0, BINARY}, {"window", 1, 0, WINDOW}, {"rate", 1, 0, RATE},
        {"join", 1, 0, JOIN}, {"pub", 1, 0, PUB}, {"rooms", 1, 0, ROOMS}, {"stalled", 1, 0, STALLED},
        {"pub-joins", 0, 0, PUBJ}, {"count", 1, 0, COUNT}, {"rst", 0, 0, RST}, {"hold", 1, 0, HOLD},
        {"prefix", 1, 0, PREFIX}, {"suffix", 1, 0, SUFFIX}, {"stat-cpu", 0, 0, STATCPU}, {"drain", 1, 0, DRAIN},
        {"mid", 0, 0, MID}, {"from", 1, 0, FROM}, {"help", 0, 0, USAGE}, {0}};
    static const char *modes[] = {"echo", "fanout", "handshake", "idle", "publish", "replay"};
    bool conns_given = false;
    o.mode = -1;
    o.hold = 1;
    for (int c, i = 0; (c = getopt_long(argc, argv, "h", longs, &i)) != -1;) {
        const char *name = c >= 256 ? longs[i].name : "";
        switch (c) {
        case HOST: o.host = optarg; break;
        case PORT: o.port = (int)number(name, optarg, 1, 65535); break;
        case PATH: o.path = optarg; break;
        case CONNS: o.conns = (int)number(name, optarg, 1, 1e6); conns_given = true; break;
        case DEPTH: o.depth = (int)number(name, optarg, 1, 1e6); break;
        case SIZE: o.size = (size_t)number(name, optarg, 0, 1e9); break;
        case DUR: o.duration = number(name, optarg, 0.01, 86400); break;
        case WARM: o.warmup = number(name, optarg, 0, 3600); break;
        case PID:
            if (o.npids == MAX_PIDS) fail("too many --pid");
            o.pids[o.npids++] = (int)number(name, optarg, 1, 1e9);
            break;
        case HEADER: o.header = optarg; break;
        case SUBP: o.subprotocol = optarg; break;
        case HELLO: o.hello = optarg; break;
        case SETTLE: o.settle = number(name, optarg, 0, 3600); break;
        case TIMEOUT: o.timeout = number(name, optarg, 0.1, 3600); break;
        case HSP: o.hs_parallel = (int)number(name, optarg, 1, 1e5); break;
        case VERIFY: o.verify = true; break;
        case BINARY: o.binary = true; break;
        case WINDOW: o.window = (int)number(name, optarg, 1, 1e6); break;
        case RATE: o.rate = number(name, optarg, 0, 1e7); break;
        case JOIN: o.join = optarg; break;
        case PUB: o.pub = optarg; break;
        case ROOMS: o.rooms = (int)number(name, optarg, 1, 1e6); break;
        case STALLED: o.stalled = (int)number(name, optarg, 0, 1e6); break;
        case PUBJ: o.pub_joins = true; break;
        case COUNT: o.count = (long)number(name, optarg, 1, 1e9); o.count_given = true; break;
        case RST: o.clean_close = false; break;
        case HOLD: o.hold = number(name, optarg, 0, 86400); break;
        case PREFIX: o.prefix = optarg; break;
        case SUFFIX: o.suffix = optarg; break;
        case STATCPU: o.stat_cpu = true; break;
        case DRAIN: o.drain = number(name, optarg, 0, 3600); break;
        case MID: o.mid = true; break;
        case FROM: o.from = (uint64_t)number(name, optarg, 0, 1e15); break;
        case USAGE: case 'h': fputs(HELP, stdout); return 0;
        default: fputs(HELP, stderr); return 2;
        }
    }
    for (int m = 0; m < 6 && optind < argc; m++)
        if (!strcmp(argv[optind], modes[m])) o.mode = m;
    if (o.mode < 0 || optind + 1 != argc || !o.port) { fputs(HELP, stderr); return 2; }
    if (o.mode == MODE_HANDSHAKE && !conns_given) o.conns = 16;
    if (o.rooms > o.conns) o.rooms = o.conns;
    if (!o.join) o.join = o.mode == MODE_PUBLISH ? WIRE_JOIN : FANOUT_JOIN;
    if (!o.pub) o.pub = o.mode != MODE_PUBLISH ? FANOUT_PUB : o.mid ? WIRE_PUB_MID : WIRE_PUB;

    size_t slots = (size_t)o.conns + (size_t)o.stalled + 1;
    struct rlimit lim;
    if (!getrlimit(RLIMIT_NOFILE, &lim) && lim.rlim_cur < slots + 16) {
        lim.rlim_cur = lim.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &lim) || lim.rlim_cur < slots + 16) fail("too few file descriptors for %zu", slots);
    }
    conns = calloc(slots, sizeof *conns);
    padding = malloc(o.size + 17);
    if (!conns || !padding) fail("out of memory");
    memset(padding, 'x', o.size + 17);
    size_t before = strlen(o.prefix), after = strlen(o.suffix);
    if (before + after > o.size) fail("--prefix and --suffix do not fit in --size");
    memcpy(padding, o.prefix, before);
    memcpy(padding + o.size - after, o.suffix, after);
    seq_at = before;
    seq_len = o.size - before - after < 16 ? o.size - before - after : 16;
    ep = epoll_create1(EPOLL_CLOEXEC);
    last_progress = now_ns();
    switch (o.mode) {
    case MODE_ECHO: run_echo(); break;
    case MODE_FANOUT: run_fanout(); break;
    case MODE_HANDSHAKE: run_handshake(); break;
    case MODE_PUBLISH: run_publish(); break;
    case MODE_REPLAY: run_replay(); break;
    default: run_idle();
    }
    return 0;
}
