/* What pci_devices.c (lifecycle, and what is behind devices) and pci_makers.c (one maker a kind) share. */
#ifndef HEC_VM_PCI_DEVICES_PRIV_H
#define HEC_VM_PCI_DEVICES_PRIV_H

#include "dev/chardev.h"
#include "vm/pci_devices.h"

/* A thread, and who it is for. */
struct device_loop {
    struct device_loop *next;
    const void *owner; /* a vm_iothread, a vm_device, or the list itself for what all share */
    struct ioloop *loop;
};

struct device_block {
    struct device_block *next;
    struct block *block;
};

struct device_net {
    struct device_net *next;
    struct net *net;
};

struct device_chardev {
    struct device_chardev *next;
    struct chardev *chardev;
};

/* A device that was made. */
struct device_made {
    struct device_made *next; /* the one made before */
    const struct device_ops *ops;
    void *dev;
};

struct pci_devices {
    struct pci_devices_config cfg; /* (c) */
    struct device_loop *loops;
    struct device_block *blocks;
    struct device_net *nets;
    struct device_made *made; /* the last one first */
};

struct device_ops {
    int (*make)(struct pci_devices *d, const struct vm_device *v, void **dev, struct err *e);
    void (*reset)(void *dev); /* NULL: nothing but configuration space */
    void (*destroy)(void *dev);
};

/* By enum vm_device_kind; `make` is NULL for what is made by the controller it is on. */
extern const struct device_ops device_ops[VM_DEVICE_KINDS];

/* ---- for makers; what they return lives until pci_devices_destroy() ---- */
/* The thread for `owner`, made if need be; `name` is for its name. */
int device_loop(struct pci_devices *d, const void *owner, const char *name, struct ioloop **out, struct err *e);
/* The one all of a kind share: networks, or what needs little. */
int device_net_loop(struct pci_devices *d, struct ioloop **out, struct err *e);
int device_common_loop(struct pci_devices *d, struct ioloop **out, struct err *e);
int device_block(struct pci_devices *d, const struct vm_drive *drive, struct ioloop *loop, struct block **out,
                 struct err *e);
int device_net(struct pci_devices *d, const struct vm_net *net, struct ioloop *loop, struct net **out, struct err *e);

#endif
