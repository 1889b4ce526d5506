/* A trace in Chrome's JSON format, for Perfetto (ui.perfetto.dev) and chrome://tracing: slices and flow arrows on
 * tracks. "Trace Event Format", JSON Object Format.
 *
 * The file is whole JSON after every write: the closing brackets follow the last event and the next one overwrites
 * them, so that even a killed process leaves something to load. Where the output can't seek, only an orderly end closes
 * the brackets.
 */
#ifndef HEC_BASE_TRACE_JSON_H
#define HEC_BASE_TRACE_JSON_H

#include "base/err.h"

#include <stdint.h>

struct trace_json;

/* Who a slice belongs to: a process, as the viewer groups tracks, and a thread in it. */
struct trace_track {
    uint32_t pid, tid;
};

/* ---- lifecycle ---- */
int trace_json_open(const char *path, struct trace_json **out, struct err *e);
int trace_json_close(struct trace_json *j); /* NULL: nothing; -errno: not all was written */

/* ---- any thread; `ns` since the trace was opened; text is escaped here ---- */
void trace_json_name_process(struct trace_json *j, uint32_t pid, const char *name);
void trace_json_name_track(struct trace_json *j, struct trace_track at, const char *name);
/* A slice whose end is known, with `text` as its one argument (NULL: none). */
void trace_json_slice(struct trace_json *j, struct trace_track at, uint64_t ns, uint64_t length, const char *name,
                      const char *text);
/* A slice that begins, or the last one begun that ends. */
void trace_json_begin(struct trace_json *j, struct trace_track at, uint64_t ns, const char *name);
void trace_json_end(struct trace_json *j, struct trace_track at, uint64_t ns);
/* An arrow from the slice around `ns` here ... to the slice around `ns` there. One at a time has an id. */
void trace_json_flow_from(struct trace_json *j, struct trace_track at, uint64_t ns, uint64_t id);
void trace_json_flow_to(struct trace_json *j, struct trace_track at, uint64_t ns, uint64_t id);
/* Something that happened, without length. */
void trace_json_instant(struct trace_json *j, struct trace_track at, uint64_t ns, const char *name);
/* A line of another category. */
void trace_json_log(struct trace_json *j, uint64_t ns, const char *text);

#endif
