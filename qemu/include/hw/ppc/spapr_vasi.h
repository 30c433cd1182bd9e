/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR partition migration session (VASI)
 *
 * What the machine's RTAS code needs of spapr_vasi.c.
 */

#ifndef HW_PPC_SPAPR_VASI_H
#define HW_PPC_SPAPR_VASI_H

#include "hw/ppc/spapr.h"

/* Give the machine its session, without a stream yet */
void spapr_vasi_init(SpaprMachineState *spapr);

/*
 * ibm,suspend-me, whose result goes to @rets: its status. With 0 the caller
 * suspends the machine; @rets may be written again before it wakes up.
 */
int spapr_vasi_suspend(SpaprVasi *vasi, target_ulong rets);

#endif /* HW_PPC_SPAPR_VASI_H */
