/* Segments of one TCP/IPv4 connection that follow each other become one large frame, as the guest's own stack would
 * make of them, for a fraction of what it costs there. The reverse of net_complete() (net_gso.h). One thread.
 *
 * Frames come from somebody who is trusted to have right checksums (libslirp): they are not looked at.
 */
#ifndef HEC_DEV_NET_GRO_H
#define HEC_DEV_NET_GRO_H

#include "dev/net.h"

struct net_gro;

/* Takes a frame, good during the call. */
typedef void net_gro_emit(void *opaque, const struct net_hdr *hdr, const uint8_t *frame, size_t len);

/* NULL: no memory. */
struct net_gro *net_gro_create(net_gro_emit *emit, void *opaque);
void net_gro_destroy(struct net_gro *g); /* what it holds is lost; NULL is allowed */
/* Take a frame: it is emitted now, or kept for one that may follow. Frames of a connection stay in order. */
void net_gro_add(struct net_gro *g, const uint8_t *frame, size_t len);
/* Nothing follows for now. */
void net_gro_flush(struct net_gro *g);

#endif
