#include "cli/status.h"

#include "base/clock.h"

#include <sys/ioctl.h>
#include <unistd.h>

#define DEFAULT_COLUMNS 80

static unsigned columns_of(FILE *out)
{
    struct winsize w;
    return ioctl(fileno(out), TIOCGWINSZ, &w) == 0 && w.ws_col > 10 ? w.ws_col : DEFAULT_COLUMNS;
}

void status_init(struct status *s, struct vm_config *c, FILE *out)
{
    *s = (struct status){.out = out};
    s->on = isatty(fileno(out)) && !(c->trace_mask && !c->trace_file);
    for (unsigned i = 0; i < VM_SERIAL_MAX; i++)
        s->on &= c->serial[i].kind != VM_SERIAL_STDIO;
    if (!s->on)
        return;
    s->columns = columns_of(out);
    c->progress = status_show;
    c->progress_opaque = s;
}

/* What the engine counts: instructions, or KVM's exits. */
static uint64_t work(const struct vm_stats *st)
{
    return st->instructions ? st->instructions : st->exits;
}

int status_format(char *buf, size_t size, const struct vm_stats *st, double rate, unsigned columns)
{
    bool exits = !st->instructions && st->exits;
    int n = snprintf(buf, size, "hecaton: %u of %u CPUs, guest %llu.%01llu s, %.0f %s/s", st->cpus_started, st->cpus,
                     (unsigned long long)(st->guest_ns / NS_PER_SEC),
                     (unsigned long long)(st->guest_ns / (NS_PER_SEC / 10) % 10), exits ? rate : rate / 1e6,
                     exits ? "exits" : "M instructions");
    if (n >= (int)size)
        n = (int)size - 1;
    if (n >= (int)columns)
        n = (int)columns - 1;
    buf[n] = 0;
    return n;
}

static void update_rate(struct status *s, const struct vm_stats *st)
{
    uint64_t dt = st->host_ns - s->last_ns;
    if (!dt || st->host_ns < s->last_ns || work(st) < s->last_work)
        return;
    double now = (double)(work(st) - s->last_work) * 1e9 / (double)dt;
    s->rate = s->last_ns ? 0.7 * s->rate + 0.3 * now : now;
    s->last_ns = st->host_ns;
    s->last_work = work(st);
}

void status_show(void *opaque, const struct vm_stats *st)
{
    struct status *s = opaque;
    char text[160];
    if (!st) {
        status_erase(s);
        return;
    }
    if (!s->on)
        return;
    update_rate(s, st);
    status_format(text, sizeof text, st, s->rate, s->columns);
    fprintf(s->out, "\r\033[K%s", text);
    fflush(s->out);
    s->shown = true;
}

void status_erase(struct status *s)
{
    if (!s->shown)
        return;
    fputs("\r\033[K", s->out);
    fflush(s->out);
    s->shown = false;
}
