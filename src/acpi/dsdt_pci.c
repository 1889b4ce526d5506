/* The PCI root in the DSDT: windows, interrupt routing, and what the guest may take over. PCI Firmware 3.3, chapter 4
 * "PCI Express Specific ACPI". */
#include "acpi/acpi_priv.h"
#include "acpi/aml.h"

#define OSC_UUID "33DB4D5B-1FF7-401C-9657-7441C03DD766"

/* First doubleword of _OSC's buffer: what is reported; third: control that the guest asks for. */
enum { OSC_UNKNOWN_UUID = 0x04, OSC_UNKNOWN_REVISION = 0x08, OSC_MASKED = 0x10 };
#define OSC_GRANTED 0x1fu /* native hot-plug, SHPC hot-plug, PME, AER, the PCI Express capability */

void pic_method(struct bytes *b)
{
    aml_name(b, "PICM");
    aml_int(b, 0);
    uint64_t pic = aml_method(b, "_PIC", 1);
    aml_store(b);
    aml_arg(b, 0);
    aml_seg(b, "PICM");
    aml_end(b, pic);
}

/* What is below the configuration ports and above them; BARs may lie anywhere in it. */
static void windows(struct bytes *b, const struct acpi_config *c)
{
    struct aml_crs crs = aml_crs(b);
    aml_res_window(b, AML_BUS, 2, 0, 256);
    aml_res_io(b, 0xcf8, 8);
    aml_res_window(b, AML_IO, 2, 0, 0xcf8);
    aml_res_window(b, AML_IO, 2, 0xd00, 0xf300);
    if (c->pci32.len)
        aml_res_window(b, AML_MEMORY, 4, c->pci32.base, c->pci32.len);
    if (c->pci64.len)
        aml_res_window(b, AML_MEMORY, 8, c->pci64.base, c->pci64.len);
    aml_crs_end(b, crs);
}

static unsigned routed(const uint8_t line[32][4])
{
    unsigned n = 0;
    for (unsigned i = 0; i < 128; i++)
        n += line[i / 4][i % 4] != 0;
    return n;
}

/* ACPI 6.5, 6.2.13 "_PRT (PCI Routing Table)": hardwired, so the source is 0 and its index the interrupt's number. */
static void routes(struct bytes *b, const char *name, const uint8_t line[32][4])
{
    aml_name(b, name);
    uint64_t all = aml_package(b, routed(line));
    for (unsigned i = 0; i < 128; i++) {
        if (!line[i / 4][i % 4])
            continue;
        uint64_t one = aml_package(b, 4);
        aml_int(b, i / 4 << 16 | 0xffff);
        aml_int(b, i % 4);
        aml_int(b, 0);
        aml_int(b, line[i / 4][i % 4]);
        aml_end(b, one);
    }
    aml_end(b, all);
}

static void routing(struct bytes *b, const struct acpi_config *c)
{
    routes(b, "PRTA", c->intx_gsi);
    routes(b, "PRTP", c->intx_irq);
    uint64_t prt = aml_method(b, "_PRT", 0);
    uint64_t apic = aml_if(b);
    aml_seg(b, "PICM");
    aml_return(b);
    aml_seg(b, "PRTA");
    aml_end(b, apic);
    aml_return(b);
    aml_seg(b, "PRTP");
    aml_end(b, prt);
}

static void or_into(struct bytes *b, const char *field, unsigned bit)
{
    aml_or(b);
    aml_seg(b, field);
    aml_int(b, bit);
    aml_seg(b, field);
}

/* Take out of the third doubleword what is not granted, and say so. */
static void osc_grant(struct bytes *b)
{
    aml_arg_field(b, 3, 8, "CDW3");
    aml_store(b);
    aml_seg(b, "CDW3");
    aml_local(b, 0);
    aml_and(b);
    aml_seg(b, "CDW3");
    aml_int(b, OSC_GRANTED);
    aml_seg(b, "CDW3");
    uint64_t masked = aml_if(b);
    aml_not(b);
    aml_equal(b);
    aml_seg(b, "CDW3");
    aml_local(b, 0);
    or_into(b, "CDW1", OSC_MASKED);
    aml_end(b, masked);
    uint64_t revision = aml_if(b);
    aml_not(b);
    aml_equal(b);
    aml_arg(b, 1);
    aml_int(b, 1);
    or_into(b, "CDW1", OSC_UNKNOWN_REVISION);
    aml_end(b, revision);
}

/* PCI Firmware 3.3, 4.5.1 "_OSC Interface for PCI Host Bridge Devices". */
static void osc(struct bytes *b)
{
    uint64_t method = aml_method(b, "_OSC", 4);
    aml_arg_field(b, 3, 0, "CDW1");
    uint64_t known = aml_if(b);
    aml_equal(b);
    aml_arg(b, 0);
    aml_uuid(b, OSC_UUID);
    osc_grant(b);
    aml_end(b, known);
    uint64_t unknown = aml_else(b);
    or_into(b, "CDW1", OSC_UNKNOWN_UUID);
    aml_end(b, unknown);
    aml_return(b);
    aml_arg(b, 3);
    aml_end(b, method);
}

void pci_root_device(struct bytes *b, const struct acpi_config *c)
{
    uint64_t device = aml_device(b, "PCI0");
    aml_name(b, "_HID");
    aml_eisaid(b, "PNP0A08");
    aml_name(b, "_CID");
    aml_eisaid(b, "PNP0A03");
    aml_name(b, "_UID");
    aml_int(b, 0);
    aml_name(b, "_BBN");
    aml_int(b, 0);
    windows(b, c);
    routing(b, c);
    osc(b);
    uint64_t isa = aml_device(b, "ISA_");
    aml_name(b, "_ADR");
    aml_int(b, 0x1f0000);
    legacy_device(b, "RTC_", "PNP0B00", 0x70, 2, 8);
    if (c->serial)
        legacy_device(b, "COM1", "PNP0501", 0x3f8, 8, 4);
    aml_end(b, isa);
    aml_end(b, device);
}
