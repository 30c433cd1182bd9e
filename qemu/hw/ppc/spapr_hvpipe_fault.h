/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): faults to inject
 *
 * The hypervisor makes errors on demand. A text such as
 *
 *     receive:status=-1,count=3;event:duplicate
 *
 * becomes a list of faults. The device asks the list at each place where a
 * fault can strike. docs/specs/ppc-spapr-hvpipe.rst has the grammar.
 */

#ifndef HW_PPC_SPAPR_HVPIPE_FAULT_H
#define HW_PPC_SPAPR_HVPIPE_FAULT_H

typedef enum HvpipeFaultTarget {
    HVPIPE_FAULT_SEND,
    HVPIPE_FAULT_RECEIVE,
    HVPIPE_FAULT_CHECK_EXCEPTION,
    HVPIPE_FAULT_SET_SYSTEM_PARAMETER,
    HVPIPE_FAULT_EVENT,
    HVPIPE_FAULT_REPLACE_EVENT,
    HVPIPE_FAULT_TARGETS
} HvpipeFaultTarget;

typedef enum HvpipeFaultKey {
    HVPIPE_FAULT_STATUS,
    HVPIPE_FAULT_SOURCE,
    HVPIPE_FAULT_LENGTH,
    HVPIPE_FAULT_COUNT,
    HVPIPE_FAULT_EVERY,
    HVPIPE_FAULT_KEYS
} HvpipeFaultKey;

/* A set of keys, one bit each */
#define HVPIPE_FAULT_KEY(k) (1u << HVPIPE_FAULT_##k)

/* Kinds of the targets "event" and "replace-event" */
typedef enum HvpipeFaultEvent {
    HVPIPE_FAULT_NO_EVENT,
    HVPIPE_FAULT_DUPLICATE,
    HVPIPE_FAULT_NO_SECTION,
    HVPIPE_FAULT_SHORT_SECTION,
    HVPIPE_FAULT_UNKNOWN_SOURCE,
    HVPIPE_FAULT_BOTH_BITS,
    HVPIPE_FAULT_UNKNOWN_BITS,
    HVPIPE_FAULT_WRONG_TYPE,
} HvpipeFaultEvent;

typedef struct HvpipeFault {
    HvpipeFaultTarget target;
    int kind;                   /* -1: none */
    uint32_t given;             /* keys that have a value */
    int64_t value[HVPIPE_FAULT_KEYS];
    uint64_t seen;
} HvpipeFault;

/* A list of faults from @text; NULL also when it has none, see @errp. */
GSList *hvpipe_faults_parse(const char *text, Error **errp);

/* The text of what is left of @faults; the caller frees it. */
char *hvpipe_faults_print(GSList *faults);

void hvpipe_faults_free(GSList *faults);

/*
 * True if one of @faults strikes @target now; *@strike says how. With @keys
 * only faults that set one of them can strike. The last strike of a fault
 * removes it from the list.
 */
bool hvpipe_faults_strike(GSList **faults, HvpipeFaultTarget target,
                          uint32_t keys, HvpipeFault *strike);

/* True if a fault of @target is left. */
bool hvpipe_faults_any(GSList *faults, HvpipeFaultTarget target);

#endif /* HW_PPC_SPAPR_HVPIPE_FAULT_H */
