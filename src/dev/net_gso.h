/* Offloads in software: checksums that the guest left to its card, and large TCP frames cut into segments. RFC 1071
 * "Computing the Internet Checksum"; RFC 9293, 3.1 "Header Format"; VIRTIO 1.2, 5.1.6.2 "Packet Transmission".
 *
 * Frames come from a guest and may lie or change while they are read: headers are copied once and judged in the copy.
 */
#ifndef HEC_DEV_NET_GSO_H
#define HEC_DEV_NET_GSO_H

#include "dev/net.h"

#define NET_HEAD_MAX 256u /* headers of a frame that asks for an offload end within that many bytes */
#define NET_GSO_MIN  16u  /* a smaller gso_size is refused: it would make thousands of segments */
#define NET_IOVS     64u  /* pieces of a frame these functions take */

/* ---- any thread ---- */
/* Ones' complement sum of bytes, folded to 16 bits, as a host-order number whose bytes are stored as they are. */
uint16_t net_sum(const void *bytes, size_t len);
uint16_t net_sum_iov(const struct iovec *iov, unsigned n, size_t off, size_t len);
static inline uint16_t net_fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

/* Whether `h` makes sense for a frame of `len` bytes: offsets inside, a known gso_type, a size that is not silly. */
bool net_hdr_sane(const struct net_hdr *h, size_t len);

/* A frame whose headers are complete: pieces in order, good during the call. False: stop. */
typedef bool net_emit(void *opaque, const struct iovec *frame, unsigned iovs, size_t len);

/* Do in software what `h` asks for: hand complete frames to `emit`, the checksum filled in, segmented if it is a large
 * one. `iovs` <= NET_IOVS; emit gets at most NET_IOVS + 1. False: the frame's headers contradict `h`, nothing was
 * emitted. */
bool net_complete(const struct net_hdr *h, const struct iovec *frame, unsigned iovs, size_t len, net_emit *emit,
                  void *opaque);

/* The same in place, for a frame in one piece that is not to be cut: a large TCP/IPv4 frame gets its total length and
 * stays one. False: `h` contradicts the headers. */
bool net_complete_whole(const struct net_hdr *h, uint8_t *frame, size_t len);

#endif
