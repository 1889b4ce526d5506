/* What the process may still ask of the host's kernel once its machine is built: seccomp, for every thread.
 *
 * A call that is not on the list in sandbox.c is refused with EPERM, and the first one is told in a line on standard
 * error; later ones are refused without a word. A call in another ABI than x86-64 ends the process. No new privileges
 * can be had from then on.
 */
#ifndef HEC_VM_SANDBOX_H
#define HEC_VM_SANDBOX_H

#include "base/err.h"

/* Enter it, for good. The machine is built and its files, sockets and children are open; threads that exist are put
 * under the filter too, those made later inherit it. -errno: the host's kernel does not take the filter, and nothing
 * has changed (but for new privileges, which may be barred already). */
int sandbox_enter(struct err *e);

#endif
