#include "base/trace.h"

#include <stdarg.h>

void trace_write(const struct trace *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    flockfile(t->out);
    vfprintf(t->out, fmt, ap);
    putc('\n', t->out);
    funlockfile(t->out);
    va_end(ap);
}
