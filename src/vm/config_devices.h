/* Disks, networks, character devices and PCI devices of a machine: plain data, in lists in the order they were asked
 * for. cli/ fills them, config_devices_resolve() finds who refers to whom, gives every function its address, and makes
 * the devices that other options imply; from then on they are constant.
 *
 * Items and strings belong to the configuration and live until vm_config_fini(). Options are QEMU's where they mean the
 * same; QEMU's order is kept too, because it decides addresses: cards of -net and -nic, then -device, then disks of
 * -drive if=virtio.
 */
#ifndef HEC_VM_CONFIG_DEVICES_H
#define HEC_VM_CONFIG_DEVICES_H

#include "dev/block.h"
#include "dev/net.h"

#define VM_ANY            UINT32_MAX /* a number that was not given */
#define VM_IDE_PORTS      6u         /* of an AHCI controller */
#define VM_AHCI_DEVFN     0xfau      /* 00:1f.2, q35's own controller */
#define VM_FIRST_SLOT     2u         /* device number of the first function without addr=; QEMU's display is at 1 */
#define VM_CONSOLES_MAX   31u        /* ports of a virtio-serial-pci */
#define VM_BLK_QUEUES_MAX 1024u
#define VM_NET_PAIRS_MAX  1023u
#define VM_QUEUE_SIZE_MAX 1024u
#define VM_VECTORS_MAX    2048u
#define VM_DEVFN(d, f)    ((uint32_t)(d) << 3 | (uint32_t)(f))

struct vm_config;
struct vm_device;

enum vm_drive_if { VM_DRIVE_IDE, VM_DRIVE_VIRTIO, VM_DRIVE_NONE };

struct vm_drive {
    struct vm_drive *next;
    const char *option;        /* who asked: "-drive", "-hda" */
    const char *id;            /* resolved: never NULL */
    struct block_config image; /* its `option` is set when resolved */
    enum vm_drive_if iface;
    uint32_t index;         /* ide: the port; VM_ANY: the next */
    const char *serial;     /* the disk's, unless the device says another; NULL: none */
    unsigned snapshot;      /* enum vm_onoffauto; auto: as -snapshot says */
    struct vm_device *user; /* resolved: the disk it is in */
};

struct vm_net {
    struct vm_net *next;
    const char *option;
    struct net_config net;
    bool hub;               /* of -net: for the card of -net nic */
    struct vm_device *user; /* resolved */
};

struct vm_iothread {
    struct vm_iothread *next;
    const char *id;
};

struct vm_chardev {
    struct vm_chardev *next;
    const char *id;
    const char *spec;    /* for chardev_config */
    const char *used_by; /* resolved; NULL: nobody */
};

enum vm_device_kind {
    VM_DEVICE_ROOT_PORT,
    VM_DEVICE_AHCI,
    VM_DEVICE_IDE_HD,
    VM_DEVICE_VIRTIO_BLK,
    VM_DEVICE_VIRTIO_NET,
    VM_DEVICE_E1000E,
    VM_DEVICE_VIRTIO_RNG,
    VM_DEVICE_VIRTIO_SERIAL,
    VM_DEVICE_VIRTCONSOLE, /* and virtserialport */
    VM_DEVICE_PVPANIC,
    VM_DEVICE_IRQ_TEST,
    VM_DEVICE_KINDS
};

enum vm_device_origin { VM_FROM_NET, VM_FROM_DEVICE, VM_FROM_DRIVE };

struct vm_device {
    struct vm_device *next;
    enum vm_device_kind kind;
    enum vm_device_origin origin;
    const char *option; /* for messages: "-device virtio-blk-pci", "-net nic" */
    const char *id;     /* NULL: none */
    const char *bus;    /* NULL: where such a device goes */
    uint32_t addr;      /* devfn on its bus; VM_ANY: a free one. Resolved: of a function on a PCI bus, where it is */
    const char *drive, *netdev, *iothread, *chardev;
    const char *serial, *model; /* of a disk; NULL: the device's choice */
    const char *name;           /* of a console port */
    uint32_t slot;              /* of a root port; VM_ANY: by number */
    uint32_t nr;                /* of a console port; VM_ANY: the next. Resolved: which */
    uint32_t queues;            /* requests queues, queue pairs; 0: the device's choice */
    uint32_t queue_size;        /* 0: the device's choice */
    uint32_t vectors;           /* VM_ANY: the device's choice */
    uint32_t msi;               /* of irq-test-pci */
    uint32_t events;            /* pvpanic: what is offered */
    bool plain_port;            /* virtserialport: no terminal */
    bool mq;                    /* virtio-net: more than one queue pair */
    unsigned write_cache;       /* virtio-blk: enum vm_onoffauto; auto: as the drive's cache= */
    bool config_wce_off, write_zeroes_off;
    bool discard_off;                       /* a disk that takes no discard */
    uint8_t mac[6];                         /* zeros: chosen by config_devices_resolve() */
    unsigned iommu_platform;                /* virtio: enum vm_onoffauto */
    bool packed, no_event_idx, no_indirect; /* virtio */

    /* resolved */
    struct vm_drive *disk;
    struct vm_net *net;
    struct vm_iothread *loop;
    struct vm_chardev *chr;
    struct vm_device *parent; /* the root port, AHCI controller or virtio-serial it is on; NULL: bus 0 */
    uint32_t port;            /* of a disk on an AHCI controller */
};

struct vm_note {
    struct vm_note *next;
    const char *text;
};

struct vm_devices {
    struct vm_drive *drives;
    struct vm_net *nets;
    struct vm_iothread *iothreads;
    struct vm_chardev *chardevs;
    struct vm_device *devices;
    struct vm_note *notes; /* what was accepted and changes nothing, a line each: for cli/ to say aloud */
    struct vm_text *texts; /* every string above */
    bool snapshot;         /* -snapshot */
    bool serial_used;      /* resolved: COM1 is a -chardev's */
};

/* ---- filling it; one thread ---- */
/* A new item at its list's end, with VM_ANY where a number was not given; NULL: no memory. */
struct vm_drive *vm_devices_drive(struct vm_devices *d);
struct vm_net *vm_devices_net(struct vm_devices *d);
struct vm_iothread *vm_devices_iothread(struct vm_devices *d);
struct vm_chardev *vm_devices_chardev(struct vm_devices *d);
struct vm_device *vm_devices_device(struct vm_devices *d, enum vm_device_kind kind, enum vm_device_origin origin);
/* A copy of printf's result; NULL: no memory. */
const char *vm_devices_text(struct vm_devices *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Note that something is accepted and ignored; the same line is noted once. -ENOMEM. */
int vm_devices_note(struct vm_devices *d, struct err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void vm_devices_fini(struct vm_devices *d);

/* ---- connecting it; once, after all is filled ---- */
/* -EINVAL with one line: an unknown or doubled id, a drive or network used twice or by nobody, no room on a bus, ... */
int config_devices_resolve(struct vm_config *c, struct err *e);

/* ---- resolved; pure ---- */
/* As config_check(): what this machine can't have. */
int config_devices_check(const struct vm_config *c, struct err *e);
/* "virtio-blk-pci", as -device has it. */
const char *vm_device_name(enum vm_device_kind kind);
/* Whether it is a function on a PCI bus, rather than something on a controller. */
bool vm_device_is_pci(enum vm_device_kind kind);
struct vm_chardev *vm_devices_find_chardev(const struct vm_devices *d, const char *id);

#endif
