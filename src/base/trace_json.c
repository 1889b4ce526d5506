#include "base/trace_json.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUFFER    65536
#define EVENT_MAX 2048
#define LOG_PID   3

static const char head[] = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";
static const char tail[] = "\n]}\n";

struct trace_json {
    pthread_mutex_t lock;
    int fd;      /* (c) */
    bool seeks;  /* (c) the tail can be overwritten */
    bool first;  /* (l) no event yet */
    int broken;  /* (l) a write failed with this errno: the rest is dropped */
    off_t at;    /* (l) where the buffer goes */
    size_t used; /* (l) */
    char buf[BUFFER + sizeof tail];
};

/* ---- the file; locked ---- */

static void write_all(struct trace_json *j, const char *p, size_t n)
{
    while (n && !j->broken) {
        ssize_t done = j->seeks ? pwrite(j->fd, p, n, j->at) : write(j->fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            j->broken = done < 0 ? errno : EIO;
            return;
        }
        p += done;
        n -= (size_t)done;
        j->at += done;
    }
}

/* Write the buffer and, after it, the tail, which the next flush overwrites. */
static void flush(struct trace_json *j, bool last)
{
    size_t events = j->used;
    bool with_tail = last || j->seeks;
    if (with_tail)
        memcpy(j->buf + events, tail, sizeof tail - 1);
    write_all(j, j->buf, events + (with_tail ? sizeof tail - 1 : 0));
    if (with_tail)
        j->at -= sizeof tail - 1;
    j->used = 0;
}

static void emit(struct trace_json *j, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void emit(struct trace_json *j, const char *fmt, ...)
{
    char event[EVENT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(event, sizeof event, fmt, ap);
    va_end(ap);
    if (n <= 0 || n >= EVENT_MAX)
        return;
    pthread_mutex_lock(&j->lock);
    if (j->used + (size_t)n + 2 > BUFFER)
        flush(j, false);
    if (!j->first)
        j->used += (size_t)sprintf(j->buf + j->used, ",\n");
    memcpy(j->buf + j->used, event, (size_t)n);
    j->used += (size_t)n;
    j->first = false;
    pthread_mutex_unlock(&j->lock);
}

/* ---- lifecycle ---- */

int trace_json_open(const char *path, struct trace_json **out, struct err *e)
{
    struct stat st;
    if (!path)
        return err_set(e, -EINVAL, "-d json: a JSON trace goes to a file: give -D FILE");
    struct trace_json *j = calloc(1, sizeof *j);
    if (!j)
        return err_set(e, -ENOMEM, "no memory for the trace");
    j->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (j->fd < 0) {
        free(j);
        return err_set(e, -errno, "cannot write the trace to %s: %s", path, strerror(errno));
    }
    pthread_mutex_init(&j->lock, NULL);
    j->seeks = !fstat(j->fd, &st) && S_ISREG(st.st_mode);
    j->first = true;
    j->used = (size_t)sprintf(j->buf, "%s", head);
    flush(j, false);
    *out = j;
    return 0;
}

int trace_json_close(struct trace_json *j)
{
    if (!j)
        return 0;
    flush(j, true);
    int error = j->broken;
    close(j->fd);
    pthread_mutex_destroy(&j->lock);
    free(j);
    return -error;
}

/* ---- events ---- */

/* `s` as the inside of a JSON string: quotes and backslashes escaped, what is not printable ASCII replaced. */
static const char *quoted(const char *s, char *buf, size_t size)
{
    size_t n = 0;
    for (; *s && n + 2 < size; s++) {
        if (*s == '"' || *s == '\\')
            buf[n++] = '\\';
        buf[n++] = *s >= 0x20 && *s < 0x7f ? *s : '?';
    }
    buf[n] = 0;
    return buf;
}

#define TIME_FORMAT  "%llu.%03u"
#define TIME(ns)     (unsigned long long)((ns) / 1000), (unsigned)((ns) % 1000)
#define TRACK_FORMAT "\"pid\":%u,\"tid\":%u"

void trace_json_name_process(struct trace_json *j, uint32_t pid, const char *name)
{
    char q[256];
    emit(j, "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":%u,\"args\":{\"name\":\"%s\"}}", pid,
         quoted(name, q, sizeof q));
}

void trace_json_name_track(struct trace_json *j, struct trace_track at, const char *name)
{
    char q[256];
    emit(j, "{\"ph\":\"M\",\"name\":\"thread_name\"," TRACK_FORMAT ",\"args\":{\"name\":\"%s\"}}", at.pid, at.tid,
         quoted(name, q, sizeof q));
    emit(j, "{\"ph\":\"M\",\"name\":\"thread_sort_index\"," TRACK_FORMAT ",\"args\":{\"sort_index\":%u}}", at.pid,
         at.tid, at.tid);
}

void trace_json_slice(struct trace_json *j, struct trace_track at, uint64_t ns, uint64_t length, const char *name,
                      const char *text)
{
    char q[256], args[1400];
    length = length ? length : 1;
    emit(j,
         "{\"ph\":\"X\",\"name\":\"%s\"," TRACK_FORMAT ",\"ts\":" TIME_FORMAT ",\"dur\":" TIME_FORMAT
         ",\"args\":{\"way\":\"%s\"}}",
         quoted(name, q, sizeof q), at.pid, at.tid, TIME(ns), TIME(length),
         quoted(text ? text : "", args, sizeof args));
}

void trace_json_begin(struct trace_json *j, struct trace_track at, uint64_t ns, const char *name)
{
    char q[256];
    emit(j, "{\"ph\":\"B\",\"name\":\"%s\"," TRACK_FORMAT ",\"ts\":" TIME_FORMAT "}", quoted(name, q, sizeof q), at.pid,
         at.tid, TIME(ns));
}

void trace_json_end(struct trace_json *j, struct trace_track at, uint64_t ns)
{
    emit(j, "{\"ph\":\"E\"," TRACK_FORMAT ",\"ts\":" TIME_FORMAT "}", at.pid, at.tid, TIME(ns));
}

static void flow(struct trace_json *j, const char *kind, struct trace_track at, uint64_t ns, uint64_t id)
{
    emit(j, "{\"ph\":%s,\"cat\":\"irq\",\"name\":\"irq\",\"id\":%llu," TRACK_FORMAT ",\"ts\":" TIME_FORMAT "}", kind,
         (unsigned long long)id, at.pid, at.tid, TIME(ns));
}

void trace_json_flow_from(struct trace_json *j, struct trace_track at, uint64_t ns, uint64_t id)
{
    flow(j, "\"s\"", at, ns, id);
}

void trace_json_flow_to(struct trace_json *j, struct trace_track at, uint64_t ns, uint64_t id)
{
    flow(j, "\"f\",\"bp\":\"e\"", at, ns, id);
}

void trace_json_instant(struct trace_json *j, struct trace_track at, uint64_t ns, const char *name)
{
    char q[1400];
    emit(j, "{\"ph\":\"i\",\"s\":\"t\",\"name\":\"%s\"," TRACK_FORMAT ",\"ts\":" TIME_FORMAT "}",
         quoted(name, q, sizeof q), at.pid, at.tid, TIME(ns));
}

void trace_json_log(struct trace_json *j, uint64_t ns, const char *text)
{
    trace_json_instant(j, (struct trace_track){LOG_PID, 1}, ns, text);
}
