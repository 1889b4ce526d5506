/* Disks, networks and PCI devices: what a command line comes to, and what it is refused for. */
#include "cli_rig.h"

/* The n-th device of a kind, from 0. */
static const struct vm_device *device(const struct cli *x, enum vm_device_kind kind, unsigned n)
{
    const struct vm_device *v = x->c.dev.devices;
    while (v && (v->kind != kind || n--))
        v = v->next;
    if (!v)
        fail_msg("%s: no such %s", x->line, vm_device_name(kind));
    return v;
}

static void at(const struct vm_device *v, const struct vm_device *parent, unsigned dev, unsigned fn)
{
    if (v->parent != parent || v->addr != VM_DEVFN(dev, fn))
        fail_msg("%s is at %x.%u", v->option, v->addr >> 3, v->addr & 7);
}

static void the_line_of_the_users_machine(void **state)
{
    struct cli *x = good("-machine q35,kernel-irqchip=split -smp 300 -m 8G -kernel k -append root=/dev/sda1 "
                         "-hda debian.qcow2 -net nic -net user,hostfwd=tcp::5028-:22 -serial stdio");
    const struct vm_device *hd = device(x, VM_DEVICE_IDE_HD, 0), *nic = device(x, VM_DEVICE_E1000E, 0);
    static const uint8_t mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
    at(device(x, VM_DEVICE_AHCI, 0), NULL, 0x1f, 2);
    assert_ptr_equal(hd->parent, device(x, VM_DEVICE_AHCI, 0));
    assert_int_equal(hd->port, 0);
    assert_string_equal(hd->disk->image.file, "debian.qcow2");
    assert_string_equal(hd->disk->id, "ide0-hd0");
    assert_null(hd->disk->image.format);
    assert_int_equal(hd->disk->image.cache, BLOCK_WRITEBACK);
    assert_false(hd->disk->image.snapshot || hd->disk->image.readonly);
    at(nic, NULL, 2, 0);
    assert_memory_equal(nic->mac, mac, 6);
    assert_int_equal(nic->net->net.kind, NET_USER);
    assert_int_equal(nic->net->net.hostfwds, 1);
    assert_string_equal(nic->net->net.hostfwd[0], "tcp::5028-:22");
    assert_null(x->c.dev.notes);
    done(x);
}

static void every_drive_property_arrives(void **state)
{
    struct cli *x = good("-kernel k -drive file=a,,b.img,if=none,id=d0,format=raw,cache=none,readonly=on,snapshot=off,"
                         "discard=unmap,serial=S1,aio=io_uring,media=disk,werror=report "
                         "-device virtio-blk-pci,drive=d0,id=disk,num-queues=4,queue-size=512,vectors=5,iothread=io,"
                         "iommu_platform=true,packed=on,serial=S2,bootindex=1,discard=off "
                         "-object iothread,id=io -snapshot -hdc c -hda a");
    const struct vm_device *v = device(x, VM_DEVICE_VIRTIO_BLK, 0);
    const struct vm_drive *d = v->disk;
    assert_string_equal(d->image.file, "a,b.img");
    assert_string_equal(d->image.format, "raw");
    assert_int_equal(d->image.cache, BLOCK_NONE);
    assert_true(d->image.readonly && d->image.discard && !d->image.snapshot);
    assert_string_equal(d->serial, "S1");
    assert_string_equal(v->serial, "S2");
    assert_string_equal(v->loop->id, "io");
    assert_int_equal(v->queues, 4);
    assert_int_equal(v->queue_size, 512);
    assert_int_equal(v->vectors, 5);
    assert_int_equal(v->iommu_platform, VM_ON);
    assert_true(v->packed && v->discard_off && !v->no_event_idx);
    at(v, NULL, 2, 0);
    assert_int_equal(device(x, VM_DEVICE_IDE_HD, 0)->port, 2);
    assert_int_equal(device(x, VM_DEVICE_IDE_HD, 1)->port, 0);
    assert_true(device(x, VM_DEVICE_IDE_HD, 1)->disk->image.snapshot);
    assert_non_null(strstr(x->c.dev.notes->text, "bootindex"));
    assert_null(x->c.dev.notes->next);
    done(x);
}

static void addresses_are_given_in_qemus_order(void **state)
{
    struct cli *x = good("-kernel k -drive file=v,if=virtio -device virtio-rng-pci -device pcie-root-port,id=rp "
                         "-device virtio-net-pci,netdev=n,bus=rp -netdev user,id=n -device irq-test-pci,addr=3 "
                         "-device irq-test-pci,addr=0x1e.0 -device irq-test-pci,addr=1e.7,vectors=7 "
                         "-nic user,model=virtio,mac=52:54:00:12:34:56 -device amd-iommu");
    at(device(x, VM_DEVICE_VIRTIO_NET, 1), NULL, 2, 0); /* -nic before all */
    at(device(x, VM_DEVICE_VIRTIO_RNG, 0), NULL, 4, 0); /* 3 is taken */
    at(device(x, VM_DEVICE_ROOT_PORT, 0), NULL, 5, 0);
    at(device(x, VM_DEVICE_VIRTIO_NET, 0), device(x, VM_DEVICE_ROOT_PORT, 0), 0, 0);
    at(device(x, VM_DEVICE_IRQ_TEST, 0), NULL, 3, 0);
    at(device(x, VM_DEVICE_IRQ_TEST, 2), NULL, 0x1e, 7);
    at(device(x, VM_DEVICE_VIRTIO_BLK, 0), NULL, 6, 0);
    assert_int_equal(device(x, VM_DEVICE_IRQ_TEST, 2)->vectors, 7);
    assert_int_equal(device(x, VM_DEVICE_VIRTIO_NET, 0)->mac[5], 0x57);
    assert_int_equal(device(x, VM_DEVICE_ROOT_PORT, 0)->slot, 1);
    done(x);
}

static void a_bus_is_filled_to_the_last_slot(void **state)
{
    char line[4000] = "-kernel k";
    for (unsigned i = 0; i < 29; i++) /* of 32: the host bridge, the I/O APIC's id, the ISA bridge */
        strcat(line, " -device irq-test-pci");
    struct cli *x = good(line);
    for (unsigned i = 0; i < 29; i++)
        assert_int_not_equal(device(x, VM_DEVICE_IRQ_TEST, i)->addr >> 3, 0x14);
    at(device(x, VM_DEVICE_IRQ_TEST, 28), NULL, 1, 0);
    done(x);
    strcat(line, " -device virtio-rng-pci");
    x = parse(line);
    assert_int_equal(x->result, OPTIONS_BAD);
    assert_non_null(strstr(x->e.msg, "pcie-root-port"));
    done(x);
}

static void disks_find_their_controllers(void **state)
{
    struct cli *x = good("-kernel k -drive file=a,if=none,id=a -drive file=b,if=none,id=b -drive file=c,if=none,id=c "
                         "-drive file=i,index=0 -device ich9-ahci,id=sata -device ide-hd,drive=a,bus=sata.5 "
                         "-device ide-hd,drive=b -device ide-hd,drive=c,bus=ide.1,serial=X,model=M");
    const struct vm_device *own = device(x, VM_DEVICE_AHCI, 1), *sata = device(x, VM_DEVICE_AHCI, 0);
    at(own, NULL, 0x1f, 2);
    at(sata, NULL, 2, 0);
    const struct vm_device *a = device(x, VM_DEVICE_IDE_HD, 0), *b = device(x, VM_DEVICE_IDE_HD, 1),
                           *c = device(x, VM_DEVICE_IDE_HD, 2), *i = device(x, VM_DEVICE_IDE_HD, 3);
    assert_true(a->parent == sata && a->port == 5);
    assert_true(b->parent == own && b->port == 2);
    assert_true(c->parent == own && c->port == 1);
    assert_true(i->parent == own && i->port == 0);
    assert_string_equal(c->model, "M");
    done(x);
    x = good("-kernel k -device ich9-ahci,addr=1f.2,id=q -hdb f"); /* the machine's own, asked for */
    assert_ptr_equal(device(x, VM_DEVICE_IDE_HD, 0)->parent, device(x, VM_DEVICE_AHCI, 0));
    done(x);
}

static void every_network_property_arrives(void **state)
{
    struct cli *x = good("-kernel k -netdev user,id=u,net=10.1.0.0/16,host=10.1.0.1,dns=10.1.0.3,dhcpstart=10.1.0.9,"
                         "hostname=h,domainname=d,tftp=/t,bootfile=b,restrict=on,ipv6=off,hostfwd=tcp::1-:2,"
                         "hostfwd=udp:127.0.0.1:3-10.1.0.9:4,pcap=p "
                         "-netdev tap,id=t,ifname=tap7,script=no,downscript=no,vnet_hdr=off "
                         "-netdev socket,id=s,listen=:1234 -netdev tap,id=f,fd=9 "
                         "-device e1000e,netdev=u,mac=52:54:00:00:00:01 "
                         "-device virtio-net,netdev=t,mq=on,num-queues=8,rx_queue_size=1024 "
                         "-net nic,model=virtio-net-pci,netdev=s,macaddr=52-54-0-12-34-ff,addr=9,name=eth "
                         "-device e1000e,netdev=f");
    const struct net_config *u = &device(x, VM_DEVICE_E1000E, 0)->net->net;
    const struct net_config *t = &device(x, VM_DEVICE_VIRTIO_NET, 0)->net->net;
    const struct vm_device *nic = device(x, VM_DEVICE_VIRTIO_NET, 1);
    assert_string_equal(u->net, "10.1.0.0/16");
    assert_string_equal(u->host, "10.1.0.1");
    assert_string_equal(u->dns, "10.1.0.3");
    assert_string_equal(u->dhcpstart, "10.1.0.9");
    assert_string_equal(u->hostname, "h");
    assert_string_equal(u->domain, "d");
    assert_string_equal(u->tftp, "/t");
    assert_string_equal(u->bootfile, "b");
    assert_string_equal(u->pcap, "p");
    assert_true(u->restricted && u->ipv6_off && !u->ipv4_off);
    assert_int_equal(u->hostfwds, 2);
    assert_string_equal(u->hostfwd[1], "udp:127.0.0.1:3-10.1.0.9:4");
    assert_int_equal(t->kind, NET_TAP);
    assert_string_equal(t->ifname, "tap7");
    assert_true(t->vnet_hdr_off && t->fd == -1);
    assert_true(device(x, VM_DEVICE_VIRTIO_NET, 0)->mq);
    assert_int_equal(device(x, VM_DEVICE_VIRTIO_NET, 0)->queues, 8);
    assert_int_equal(nic->net->net.kind, NET_SOCKET);
    assert_string_equal(nic->net->net.listen, ":1234");
    assert_int_equal(nic->mac[5], 0xff);
    at(nic, NULL, 9, 0);
    assert_int_equal(device(x, VM_DEVICE_E1000E, 1)->net->net.fd, 9);
    done(x);
}

static void consoles_have_ports(void **state)
{
    struct cli *x = good("-kernel k -chardev pty,id=a -chardev socket,id=b,path=/s,server=on,wait=off "
                         "-chardev stdio,id=c -device virtio-serial-pci,id=vs -device virtconsole,chardev=a "
                         "-device virtconsole,chardev=b,nr=0,bus=vs.0,name=n -serial chardev:c");
    assert_int_equal(device(x, VM_DEVICE_VIRTCONSOLE, 0)->nr, 1);
    assert_int_equal(device(x, VM_DEVICE_VIRTCONSOLE, 1)->nr, 0);
    assert_string_equal(device(x, VM_DEVICE_VIRTCONSOLE, 1)->chr->spec, "unix:/s");
    assert_ptr_equal(device(x, VM_DEVICE_VIRTCONSOLE, 1)->parent, device(x, VM_DEVICE_VIRTIO_SERIAL, 0));
    assert_string_equal(x->c.serial[0].spec, "stdio");
    assert_int_equal(config_check(&x->c, &x->e), 0);
    done(x);
}

/* Refused with a line that says what and how to help it. */
static void mistakes_are_one_clear_line(void **state)
{
    static const struct {
        const char *line, *what, *remedy;
    } cases[] = {
        {"-hda f", "firmware", "virt-get-kernel -a f"},
        {"-device virtio-blk-pci", "needs an image", "drive=ID"},
        {"-device virtio-blk-pci,drive=x", "no drive 'x'", "-drive if=none"},
        {"-drive file=f,if=none,id=disk0 -device ide-hd,drive=disk1", "no drive 'disk1'", "'disk0'"},
        {"-drive file=f,if=none,id=x", "no disk uses f", "-device virtio-blk-pci,drive=x"},
        {"-drive file=f,id=x -device ide-hd,drive=x", "disk of its own", "if=none"},
        {"-drive file=f,if=none,id=x -device ide-hd,drive=x -device virtio-blk-pci,drive=x", "already", "its own"},
        {"-drive file=f,id=x,if=none -drive file=g,id=x,if=none", "twice", "its own"},
        {"-drive file=f,index=1 -hdb g", "-hdb", "another"},
        {"-drive file=f,index=6", "index=6", "0 to 5"},
        {"-hda a -hdb b -hdc c -hdd d -drive file=e -drive file=f -drive file=g", "6 ports", "if=virtio"},
        {"-drive if=virtio", "file=FILE", "give"},
        {"-drive file=f,media=cdrom", "CD drives", "readonly=on"},
        {"-cdrom f", "CD drives", "readonly=on"},
        {"-device ide-cd,drive=x", "CD drives", "readonly=on"},
        {"-blockdev driver=file,filename=f", "-blockdev", "-drive"},
        {"-drive file=f,cach=none", "'cach'", "'cache'"},
        {"-drive file=f,cache=writebac", "'writebac'", "'writeback'"},
        {"-drive file=f,format=qcow3", "'qcow3'", "raw, and with qemu-nbd bochs, cloop, dmg, "},
        {"-drive file=f,format=", "''", "leave format= out"},
        {"-drive file=f,format=Raw", "'Raw'", "qcow2"},
        {"-drive file=f,if=pflash", "firmware", "-kernel"},
        {"-drive file=f,if=scsi", "'scsi'", "nearest"},
        {"-drive file=f,if=none,id=d -device ide-hd,drive=d,bus=ide.6", "bus 'ide.6'", "'ide.0'"},
        {"-hda f -drive file=g,if=none,id=d -device ide-hd,drive=d,bus=ide.0", "already", "another port"},
        {"-device virtio-blk", "needs an image", "drive=ID"},
        {"-device virtio-blk-pc", "'virtio-blk-pc'", "'virtio-blk-pci'"},
        {"-device virtio-rng-pci,vector=2", "'vector'", "'vectors'"},
        {"-device virtio-rng-pci,disable-legacy=off", "legacy", "drop it"},
        {"-device virtio-rng-pci,addr=20", "addr=20", "1f.2"},
        {"-device virtio-rng-pci,addr=1.8", "addr=1.8", "1f.2"},
        {"-device virtio-rng-pci,addr=0", "host bridge", "another address"},
        {"-device virtio-rng-pci,addr=1f.0", "ISA bridge", "another address"},
        {"-device virtio-rng-pci,addr=14.0", "I/O APIC", "another address"},
        {"-device amd-iommu -device virtio-rng-pci,addr=0.2", "amd-iommu", "another address"},
        {"-device virtio-rng-pci,addr=4 -device irq-test-pci,addr=4", "virtio-rng-pci", "another address"},
        {"-device virtio-rng-pci,addr=4.1", "function 4.0", "addr=4.0"},
        {"-device virtio-rng-pci,bus=pci.0", "bus 'pci.0'", "'pcie.0'"},
        {"-device pcie-root-port,id=rp -device virtio-rng-pci,bus=rp,addr=1", "one slot", "addr=0"},
        {"-device pcie-root-port,id=rp -device irq-test-pci,bus=rp -device irq-test-pci,bus=rp", "already",
         "another root port"},
        {"-device pcie-root-port,id=rp -device pcie-root-port,bus=rp", "pcie.0", "drop bus=rp"},
        {"-device pcie-root-port,id=rp -device pcie-root-port,id=rp", "twice", "its own"},
        {"-device pcie-root-port,slot=3 -device pcie-root-port,slot=3", "slot=3", "its own"},
        {"-device e1000e", "other end", "-netdev user,id=ID"},
        {"-device e1000e,netdev=n", "no network 'n'", "-netdev user"},
        {"-netdev user,id=net0 -device e1000e,netdev=net1", "no network 'net1'", "'net0'"},
        {"-netdev user,id=n", "no card", "-device e1000e,netdev=n"},
        {"-netdev user,id=n -device e1000e,netdev=n -device e1000e,netdev=n", "already", "its own"},
        {"-netdev user,id=n -netdev user,id=n", "twice", "its own"},
        {"-netdev user", "id=ID", "give"},
        {"-netdev usr,id=n", "'usr'", "'user'"},
        {"-netdev user,id=n,hostfw=x", "'hostfw'", "'hostfwd'"},
        {"-netdev user,id=n,hostfwd=tcp::70000-:22", "hostfwd=tcp::70000-:22", "hostfwd=tcp::5028-:22"},
        {"-nic user,hostfwd=tcp::5028:22", "hostfwd=tcp::5028:22", "hostfwd=tcp::5028-:22"},
        {"-net user,net=10.0.2.0/40 -net nic", "net=10.0.2.0/40", "net=10.0.2.0/24"},
        {"-netdev tap,id=n,script=/x", "scripts", "say no"},
        {"-netdev socket,id=n", "listen=", "connect="},
        {"-netdev socket,id=n,mcast=x", "mcast", "listen="},
        {"-net nic", "other end", "-net user"},
        {"-net user", "no card", "-net nic"},
        {"-net nic -net nic -net user", "already", "-netdev"},
        {"-net nicc", "'nicc'", "'nic'"},
        {"-net nic,model=e1000 -net user", "'e1000'", "'e1000e'"},
        {"-nic usr", "'usr'", "'user'"},
        {"-nic user,mac=01:00:00:00:00:01", "mac=01", "52:54"},
        {"-nic user,mac=52:54:00:12:34", "mac=52:54:00:12:34", "52:54:00:12:34:56"},
        {"-nic user,vectors=3", "five vectors", "virtio-net-pci"},
        {"-object iothrea,id=x", "'iothrea'", "'iothread'"},
        {"-object iothread", "id=ID", "give"},
        {"-object filter-dump,id=f", "filter-dump", "pcap=FILE"},
        {"-drive file=f,if=none,id=d -device virtio-blk-pci,drive=d,iothread=t", "no iothread 't'", "-object iothread"},
        {"-drive file=f,if=none,id=d -device virtio-blk-pci,drive=d,queue-size=100", "queue-size=100", "power of two"},
        {"-chardev pty", "id=ID", "give"},
        {"-chardev ptty,id=x", "'ptty'", "'pty'"},
        {"-chardev file,id=x", "id=x", "path=PATH"},
        {"-device virtio-serial-pci -device virtconsole", "-chardev", "chardev=ID"},
        {"-chardev pty,id=a -device virtconsole,chardev=a", "port of a controller", "-device virtio-serial-pci"},
        {"-chardev pty,id=a -device virtio-serial-pci -device virtconsole,chardev=a -serial chardev:a", "already",
         "its own"},
        {"-serial chardev:x", "no character device 'x'", "-chardev"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[512];
        snprintf(line, sizeof line, "%s%s", i ? "-kernel k " : "", cases[i].line);
        struct cli *x = parse(line);
        if (x->result != OPTIONS_BAD)
            fail_msg("'%s' was accepted", cases[i].line);
        if (!strstr(x->e.msg, cases[i].what) || !strstr(x->e.msg, cases[i].remedy) || strchr(x->e.msg, '\n'))
            fail_msg("%s: '%s' does not say '%s' and '%s'", cases[i].line, x->e.msg, cases[i].what, cases[i].remedy);
        done(x);
    }
}

static void a_machine_that_cannot_be_is_refused(void **state)
{
    static const struct {
        const char *line, *what;
    } cases[] = {
        {"-machine deterministic=on -hda f", "-hda"},
        {"-machine deterministic=on -nic user", "-nic"},
        {"-machine deterministic=on -device virtio-rng-pci", "virtio-rng-pci"},
        {"-serial stdio -chardev stdio,id=s -device virtio-serial-pci -device virtconsole,chardev=s", "stdio"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char line[512];
        snprintf(line, sizeof line, "-kernel k %s", cases[i].line);
        struct cli *x = good(line);
        assert_true(config_check(&x->c, &x->e) < 0);
        assert_non_null(strstr(x->e.msg, cases[i].what));
        done(x);
    }
    struct cli *x = good("-kernel k -machine deterministic=on -device irq-test-pci -device pcie-root-port");
    assert_int_equal(config_check(&x->c, &x->e), 0);
    done(x);
}

static void none_is_nothing(void **state)
{
    struct cli *x = good("-kernel k -net none -nic none -device ich9-ahci,id=x");
    assert_null(x->c.dev.nets);
    assert_null(device(x, VM_DEVICE_AHCI, 0)->next);
    done(x);
}

static void help_tells_of_everything(void **state)
{
    static const char *const names[] = {"virtio-blk-pci", "ich9-ahci",      "ide-hd",      "virtio-net-pci",
                                        "e1000e",         "virtio-rng-pci", "virtconsole", "virtio-serial-pci",
                                        "pvpanic-pci",    "pcie-root-port", "irq-test-pci"};
    struct cli *x = parse("-device help");
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        char line[64];
        if (!strstr(x->printed, names[i]))
            fail_msg("-device help does not tell of %s", names[i]);
        snprintf(line, sizeof line, "-device %s,help", names[i]);
        struct cli *y = parse(line);
        assert_int_equal(y->result, OPTIONS_DONE);
        assert_non_null(strstr(y->printed, "id="));
        for (char *l = y->printed, *end; *l; l = end + 1) {
            end = strchr(l, '\n');
            assert_true(end - l <= 80);
        }
        done(y);
    }
    done(x);
    static const char *const lists[] = {"-drive help",     "-netdev help",  "-net help",
                                        "-nic model=help", "-chardev help", "-object help"};
    for (unsigned i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        x = parse(lists[i]);
        assert_int_equal(x->result, OPTIONS_DONE);
        assert_true(x->printed_n > 0);
        done(x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_of_the_users_machine),
        cmocka_unit_test(every_drive_property_arrives),
        cmocka_unit_test(addresses_are_given_in_qemus_order),
        cmocka_unit_test(a_bus_is_filled_to_the_last_slot),
        cmocka_unit_test(disks_find_their_controllers),
        cmocka_unit_test(every_network_property_arrives),
        cmocka_unit_test(consoles_have_ports),
        cmocka_unit_test(mistakes_are_one_clear_line),
        cmocka_unit_test(a_machine_that_cannot_be_is_refused),
        cmocka_unit_test(none_is_nothing),
        cmocka_unit_test(help_tells_of_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
