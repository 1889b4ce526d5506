#include "acpi/acpi_priv.h"
#include "acpi/aml.h"

/* Method CMAT (uid, id): the MADT entry of one CPU, so that the guest need not search the whole MADT for each. Type 0
 * for IDs below 255, else type 9. */
static void cpu_mat_method(struct bytes *b)
{
    static const uint8_t type0[8] = {0, 8, 0, 0, 1}, type9[16] = {9, 16, [8] = 1};
    uint64_t method = aml_method(b, "CMAT", 2);
    uint64_t small = aml_if(b);
    aml_less(b);
    aml_arg(b, 1);
    aml_int(b, 255);
    aml_store(b);
    uint64_t buf = aml_buffer(b, sizeof type0);
    put_mem(b, type0, sizeof type0);
    aml_end(b, buf);
    aml_local(b, 0);
    aml_field(b, 8, 0, 2, "UID8");
    aml_field(b, 8, 0, 3, "APIC");
    aml_store(b);
    aml_arg(b, 0);
    aml_seg(b, "UID8");
    aml_store(b);
    aml_arg(b, 1);
    aml_seg(b, "APIC");
    aml_return(b);
    aml_local(b, 0);
    aml_end(b, small);
    aml_store(b);
    buf = aml_buffer(b, sizeof type9);
    put_mem(b, type9, sizeof type9);
    aml_end(b, buf);
    aml_local(b, 1);
    aml_field(b, 32, 1, 4, "X2ID");
    aml_field(b, 32, 1, 12, "UIDX");
    aml_store(b);
    aml_arg(b, 1);
    aml_seg(b, "X2ID");
    aml_store(b);
    aml_arg(b, 0);
    aml_seg(b, "UIDX");
    aml_return(b);
    aml_local(b, 1);
    aml_end(b, method);
}

static void cpu_device(struct bytes *b, const struct acpi_config *c, uint32_t cpu, uint32_t uid)
{
    static const char digit[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    char name[5] = {'C', digit[uid / 36 / 36 % 36], digit[uid / 36 % 36], digit[uid % 36], 0};
    uint64_t device = aml_device(b, name);
    aml_name(b, "_HID");
    aml_str(b, "ACPI0007");
    aml_name(b, "_UID");
    aml_int(b, uid);
    uint64_t mat = aml_method(b, "_MAT", 0);
    aml_return(b);
    aml_seg(b, "CMAT");
    aml_int(b, uid);
    aml_int(b, c->ids[cpu].id);
    aml_end(b, mat);
    if (c->nodes > 1) {
        aml_name(b, "_PXM");
        aml_int(b, c->cpu_node ? c->cpu_node[cpu] : 0);
    }
    aml_end(b, device);
}

void legacy_device(struct bytes *b, const char *name, const char *hid, uint16_t port, uint8_t len, int irq)
{
    uint64_t device = aml_device(b, name);
    aml_name(b, "_HID");
    aml_eisaid(b, hid);
    aml_name(b, "_UID");
    aml_int(b, 0);
    struct aml_crs crs = aml_crs(b);
    aml_res_io(b, port, len);
    if (irq >= 0)
        aml_res_irq(b, (unsigned)irq);
    aml_crs_end(b, crs);
    aml_end(b, device);
}

static void motherboard(struct bytes *b, const struct acpi_config *c)
{
    uint64_t device = aml_device(b, "MRES");
    aml_name(b, "_HID");
    aml_eisaid(b, "PNP0C02");
    aml_name(b, "_UID");
    aml_int(b, 0);
    struct aml_crs crs = aml_crs(b);
    aml_res_io(b, c->pm_base, 0x80);
    aml_res_io(b, c->smi_cmd, 2);
    if (c->ecam.len)
        aml_res_memory(b, (uint32_t)c->ecam.base, (uint32_t)c->ecam.len);
    aml_crs_end(b, crs);
    aml_end(b, device);
}

static void soft_off(struct bytes *b, const struct acpi_config *c)
{
    aml_name(b, "_S5_");
    uint64_t package = aml_package(b, 4);
    aml_int(b, c->s5_typ);
    aml_int(b, c->s5_typ);
    aml_int(b, 0);
    aml_int(b, 0);
    aml_end(b, package);
}

void dsdt_body(struct bytes *b, const struct acpi_config *c, const uint32_t *cpu_of_uid)
{
    soft_off(b, c);
    pic_method(b);
    uint64_t sb = aml_scope(b, "_SB_");
    motherboard(b, c);
    pci_root_device(b, c);
    cpu_mat_method(b);
    for (uint32_t uid = 0; uid < c->cpus; uid++)
        cpu_device(b, c, cpu_of_uid[uid], uid);
    aml_end(b, sb);
}
