/* Inside the option parser. */
#ifndef HEC_CLI_OPTIONS_PRIV_H
#define HEC_CLI_OPTIONS_PRIV_H

#include "cli/keyval.h"
#include "cli/options.h"

#define OPTION_DONE 1 /* returned by a handler that printed something */

struct options {
    struct vm_config *cfg;
    FILE *out;
    bool smp_given;
    unsigned serials;
    const char *option; /* the one being handled, without its dash */
};

typedef int option_fn(struct options *o, const char *arg, struct err *e);

struct option_def {
    const char *name; /* without the dash; a heading of -h when `fn` is NULL */
    const char *arg;  /* NULL: takes none */
    option_fn *fn;
    const char *help; /* lines for -h; NULL: not listed */
};

/* opt_machine.c */
option_fn opt_machine, opt_accel, opt_smp, opt_memory, opt_cpu, opt_enable_kvm, opt_sandbox;
/* opt_chardev.c */
option_fn opt_serial, opt_nographic, opt_chardev;
/* opt_drive.c */
option_fn opt_drive, opt_hd, opt_snapshot, opt_blockdev, opt_cdrom;
/* opt_net.c */
option_fn opt_net, opt_netdev, opt_nic;
/* opt_device.c */
option_fn opt_device, opt_object;
/* opt_trace.c */
option_fn opt_name, opt_trace, opt_trace_file;
/* opt_iommu.c: the properties of -device intel-iommu. */
int opt_intel_iommu(struct vm_config *c, struct keyval *k, struct err *e);
int opt_amd_iommu(struct vm_config *c, struct keyval *k, struct err *e);
void help_intel_iommu(FILE *out);
void help_amd_iommu(FILE *out);
/* help.c: names and explanations in columns that fit 80. */
void help_options(FILE *out, const struct option_def *defs, size_t n);
void help_props(FILE *out, const struct prop *props, size_t n);
void help_item(FILE *out, const char *head, const char *text);

#endif
