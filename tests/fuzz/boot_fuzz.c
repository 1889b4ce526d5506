/* Any bytes as a kernel: refused with a message, or loaded within RAM. The first byte chooses what the rest is: an
 * image, the payload of a bzImage, a vmlinux to be packed into one, or changes to a sound image (offset and value,
 * three bytes each), which reach what random bytes don't. */
#include "../unit/boot_images.h"

#define RIG_MIB 20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct img sound(unsigned which)
{
    switch (which) {
    case 0:
        return img_vmlinux(IMG_PADDR, true, IMG_PADDR + 8);
    case 1:
        return img_multiboot(0x8000, 8192, 0);
    case 2:
        return img_multiboot(0x400000, 8192, 1u << 16);
    default:
        return img_bzimage_of(which - 3, true);
    }
}

static struct img changed(unsigned which, const uint8_t *data, size_t size)
{
    struct img i = sound(which);
    for (; size >= 3; data += 3, size -= 3)
        i.p[ld16(data) % i.n] = data[2];
    return i;
}

static struct img make(unsigned how, const uint8_t *data, size_t size)
{
    struct img i = {0};
    if (how >= 6)
        return changed(how - 6, data, size);
    img_add(&i, data, size);
    if (how == 0)
        return i;
    if (how == 1)
        return img_bzimage(i);
    struct img z = img_pack(how - 2, &i);
    free(i.p);
    return img_bzimage(z);
}

static void check(const struct boot_rig *r, int rc)
{
    if (rc < 0 && !r->e.msg[0])
        abort();
    if (rc >= 0 && !ram_hva(&r->ram, r->out.rip, 1))
        abort();
    if (rc >= 0 && r->out.kernel_end > r->layout.top)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct boot_rig r;
    if (!r.ram.low)
        rig_init(&r, RIG_MIB);
    if (size < 2 || size > 1 << 20)
        return 0;
    r.c.protocol = data[0] % 3;
    struct img i = make(data[0] / 3 % 14, data + 1, size - 1);
    check(&r, rig_load(&r, &i));
    free(i.p);
    return 0;
}
