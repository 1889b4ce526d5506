/* `hecaton doctor [N]`: what this host can do, and the settings that bring up N CPUs. */
#ifndef HEC_CLI_DOCTOR_H
#define HEC_CLI_DOCTOR_H

#include "cli/host.h"

#include <stdio.h>

struct kvm_probe;

/* A command (cli/command.h). Exit status 1: this host can't bring up N CPUs. */
int command_doctor(int argc, char **argv, FILE *out);

/* ---- the report's parts; pure but for `out` ---- */
void doctor_host(FILE *out, const struct host *h);
/* Whether the built-in engine can run `n` CPUs here. */
bool doctor_engine(FILE *out, const struct host *h, uint32_t n);
/* Whether KVM could. */
bool doctor_kvm(FILE *out, const struct host *h, const struct host_kvm *k, uint32_t n);
/* Which engine a machine of `n` CPUs gets by default, and why. */
void doctor_choice(FILE *out, const struct kvm_probe *p, uint32_t n);
void doctor_settings(FILE *out, uint32_t n);

#endif
