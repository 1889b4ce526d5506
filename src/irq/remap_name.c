#include "irq/remap_name.h"

const char *remap_form_name(enum remap_form form)
{
    switch (form) {
    case REMAP_FORM_COMPAT:
        return "compatibility";
    case REMAP_FORM_EXT_DEST:
        return "extended destination";
    }
    return "unnamed";
}

const char *remap_fault_name(enum remap_fault fault)
{
    switch (fault) {
    case REMAP_OK:
        return "none";
    case REMAP_NOT_INTERRUPT:
        return "not an interrupt: an ordinary memory write";
    case REMAP_BAD_MODE:
        return "delivery mode that no message carries";
    case REMAP_HIGH_ADDRESS:
        return "address bits past 31 that mean nothing on this machine";
    }
    return "unnamed";
}

const char *irq_mode_name(unsigned mode)
{
    static const char *const name[8] = {"fixed", "lowest priority", "SMI",   "remote read", "NMI",
                                        "INIT",  "start-up",        "ExtINT"};
    return name[mode & 7];
}
