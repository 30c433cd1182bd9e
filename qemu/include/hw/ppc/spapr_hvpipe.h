/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): a partition talks to its HMC
 *
 * What the machine's RTAS and event code and the device need of each other.
 * SpaprMachineState's hvpipe is NULL without the device.
 */

#ifndef HW_PPC_SPAPR_HVPIPE_H
#define HW_PPC_SPAPR_HVPIPE_H

#include "hw/ppc/spapr.h"

#define TYPE_SPAPR_HVPIPE           "spapr-hvpipe"
#define TYPE_SPAPR_HVPIPE_BUS       "spapr-hvpipe-bus"
#define TYPE_SPAPR_HVPIPE_SOURCE    "spapr-hvpipe-source-base"
#define TYPE_SPAPR_HVPIPE_CHARDEV   "spapr-hvpipe-source"
#define TYPE_SPAPR_HVPIPE_ECHO      "spapr-hvpipe-echo"

/* ibm,set-system-parameter of RTAS_SYSPARM_HVPIPE; returns its status */
int spapr_hvpipe_set_system_parameter(SpaprHvpipe *hvpipe, uint32_t buffer);

/*
 * check-exception for our event class: the event to return, for the caller to
 * free; or NULL, and then a *@status if it is not "no event found".
 */
SpaprEventLogEntry *spapr_hvpipe_check_exception(SpaprHvpipe *hvpipe,
                                                 int *status);

/* In spapr_events.c */
#define RTAS_LOG_TYPE_HVPIPE    0xe6

void spapr_hvpipe_register_event_source(SpaprMachineState *spapr, int irq);

/* A log of @type; @section goes behind the main ones, none if @size is 0 */
SpaprEventLogEntry *spapr_hvpipe_event_log(SpaprMachineState *spapr,
                                           uint8_t type, const void *section,
                                           size_t size);

#endif /* HW_PPC_SPAPR_HVPIPE_H */
