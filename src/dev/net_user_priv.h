/* Private to net_user*.c: user mode, a small router with libslirp behind it. */
#ifndef HEC_DEV_NET_USER_PRIV_H
#define HEC_DEV_NET_USER_PRIV_H

#include "dev/net_priv.h"

#include <libslirp.h>
#include <sys/socket.h>

/* One hostfwd=. */
struct user_forward {
    bool udp;
    struct sockaddr_storage host, guest;
    socklen_t host_len, guest_len;
    unsigned port; /* the host's, for messages */
};

/* The network as it is to be, from a struct net_config. */
struct user_setup {
    SlirpConfig slirp; /* its strings are the configuration's */
    struct user_forward forward[NET_FORWARDS];
    const char *text[NET_FORWARDS]; /* of each, for messages */
    unsigned forwards;
};

/* Read the options, and nothing else. -EINVAL with the option, what is wrong and how it should look. */
int net_user_setup(const struct net_config *c, struct user_setup *s, struct err *e);

struct user_frags;

/* ---- the loop's thread ---- */
/* IPv4 fragments that wait for the rest; a bounded number. NULL: no memory. */
struct user_frags *net_user_frags_create(void);
void net_user_frags_destroy(struct user_frags *f);
enum user_fragment { FRAGMENT_BAD, FRAGMENT_KEPT, FRAGMENT_LAST };
/* `frame` is a fragment, its lengths checked. If it was the last, `frame` (NET_FRAME_MAX bytes) is the whole datagram
 * now. `now`: host ns. */
enum user_fragment net_user_reassemble(struct user_frags *f, uint8_t *frame, size_t *len, uint64_t now);

/* What the filter remembers. */
struct user_filter {
    bool restricted;          /* (c) */
    struct user_frags *frags; /* (c) */
    bool full;                /* no new sockets for now */
};

/* Whether libslirp may see a frame from the guest; it may be mended, and cut to its real length: 0 if it was kept.
 * What 4.7 asserts on, keeps for ever or passes on against `restrict` ends here. `now`: host ns. */
bool net_user_filter(struct user_filter *f, uint8_t *frame, size_t *len, uint64_t now);

#endif
