/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * sPAPR hypervisor pipe (HVPIPE): faults to inject
 *
 * The tables are the grammar: a new target, kind or key goes there.
 */

#include "qemu/osdep.h"
#include "qemu/cutils.h"
#include "qapi/error.h"
#include "hw/ppc/spapr.h"
#include "spapr_hvpipe_fault.h"
#include "trace.h"

#define KEY(k) HVPIPE_FAULT_KEY(k)

static const char *const hvpipe_fault_keys[HVPIPE_FAULT_KEYS] = {
    [HVPIPE_FAULT_STATUS] = "status",
    [HVPIPE_FAULT_SOURCE] = "source",
    [HVPIPE_FAULT_LENGTH] = "length",
    [HVPIPE_FAULT_COUNT]  = "count",
    [HVPIPE_FAULT_EVERY]  = "every",
};

#define MALFORMED_EVENTS "duplicate no-section short-section unknown-source " \
                         "both-bits unknown-bits wrong-type"

static const struct {
    const char *name;
    const char *kinds;          /* separated by spaces, in the enum's order */
    uint32_t effects;           /* keys that say what goes wrong */
    uint32_t keys;              /* keys that say how often and where */
} hvpipe_fault_targets[HVPIPE_FAULT_TARGETS] = {
    [HVPIPE_FAULT_SEND] = {
        "send", NULL, KEY(STATUS), KEY(COUNT) | KEY(EVERY)
    },
    [HVPIPE_FAULT_RECEIVE] = {
        "receive", NULL,
        KEY(STATUS) | KEY(SOURCE) | KEY(LENGTH), KEY(COUNT) | KEY(EVERY)
    },
    [HVPIPE_FAULT_CHECK_EXCEPTION] = {
        "check-exception", "none", KEY(STATUS), KEY(COUNT) | KEY(EVERY)
    },
    [HVPIPE_FAULT_SET_SYSTEM_PARAMETER] = {
        "set-system-parameter", "new-pipe", KEY(STATUS),
        KEY(COUNT) | KEY(EVERY)
    },
    [HVPIPE_FAULT_EVENT] = {
        "event", "spurious " MALFORMED_EVENTS,
        0, KEY(SOURCE) | KEY(COUNT) | KEY(EVERY)
    },
    [HVPIPE_FAULT_REPLACE_EVENT] = {
        "replace-event", "lost " MALFORMED_EVENTS,
        0, KEY(SOURCE) | KEY(COUNT) | KEY(EVERY)
    },
};

void hvpipe_faults_free(GSList *faults)
{
    g_slist_free_full(faults, g_free);
}

static char *hvpipe_fault_words(HvpipeFaultTarget target)
{
    uint32_t keys = hvpipe_fault_targets[target].effects |
                    hvpipe_fault_targets[target].keys;
    GString *words = g_string_new(hvpipe_fault_targets[target].kinds);
    int i;

    for (i = 0; i < HVPIPE_FAULT_KEYS; i++) {
        if (keys & (1u << i)) {
            g_string_append_printf(words, "%s%s=N", words->len ? " " : "",
                                   hvpipe_fault_keys[i]);
        }
    }
    return g_string_free(words, FALSE);
}

static bool hvpipe_parse_fault_word(HvpipeFault *fault, const char *word,
                                    Error **errp)
{
    const char *target = hvpipe_fault_targets[fault->target].name;
    const char *value = strchr(word, '=');
    g_autofree char *words = hvpipe_fault_words(fault->target);
    uint32_t keys = hvpipe_fault_targets[fault->target].effects |
                    hvpipe_fault_targets[fault->target].keys;
    int i;

    if (!value && hvpipe_fault_targets[fault->target].kinds) {
        g_auto(GStrv) kinds =
            g_strsplit(hvpipe_fault_targets[fault->target].kinds, " ", 0);

        for (i = 0; kinds[i]; i++) {
            if (!strcmp(word, kinds[i])) {
                if (fault->kind >= 0) {
                    error_setg(errp, "'%s:' takes one kind only, '%s' is the "
                               "second", target, word);
                    return false;
                }
                fault->kind = i;
                return true;
            }
        }
    }

    for (i = 0; value && i < HVPIPE_FAULT_KEYS; i++) {
        const char *key = hvpipe_fault_keys[i];
        int64_t low = i == HVPIPE_FAULT_STATUS ? INT32_MIN :
                      i == HVPIPE_FAULT_EVERY ? 1 : 0;
        int64_t high = i == HVPIPE_FAULT_STATUS ? INT32_MAX : UINT32_MAX;

        if (!(keys & (1u << i)) || strlen(key) != value - word ||
            strncmp(word, key, value - word)) {
            continue;
        }
        if (fault->given & (1u << i)) {
            error_setg(errp, "'%s' is given twice in '%s:'", key, target);
            return false;
        }
        if (qemu_strtoi64(value + 1, NULL, 0, &fault->value[i]) ||
            fault->value[i] < low || fault->value[i] > high) {
            error_setg(errp, "'%s' in '%s:' is not a number from %" PRId64
                       " to %" PRId64, word, target, low, high);
            return false;
        }
        fault->given |= 1u << i;
        return true;
    }

    error_setg(errp, "'%s:' does not know '%s', choose from: %s", target, word,
               words);
    return false;
}

static HvpipeFault *hvpipe_parse_fault(const char *text, Error **errp)
{
    g_autofree HvpipeFault *fault = g_new0(HvpipeFault, 1);
    g_autofree char *name = g_strndup(text, strcspn(text, ":"));
    const char *rest = text + strlen(name);
    g_auto(GStrv) words = NULL;
    int i;

    fault->kind = -1;
    fault->value[HVPIPE_FAULT_COUNT] = 1;
    fault->value[HVPIPE_FAULT_EVERY] = 1;

    for (i = 0; i < HVPIPE_FAULT_TARGETS; i++) {
        if (!strcmp(name, hvpipe_fault_targets[i].name)) {
            break;
        }
    }
    if (i == HVPIPE_FAULT_TARGETS) {
        g_autoptr(GString) names = g_string_new(NULL);

        for (i = 0; i < HVPIPE_FAULT_TARGETS; i++) {
            g_string_append_printf(names, " %s:", hvpipe_fault_targets[i].name);
        }
        error_setg(errp, "'%s' is nothing that can fail, choose from:%s", name,
                   names->str);
        return NULL;
    }
    fault->target = i;

    words = g_strsplit(*rest ? rest + 1 : "", ",", 0);
    for (i = 0; words[i]; i++) {
        if (!hvpipe_parse_fault_word(fault, words[i], errp)) {
            return NULL;
        }
    }

    if (fault->kind < 0 &&
        !(fault->given & hvpipe_fault_targets[fault->target].effects)) {
        g_autofree char *choices = hvpipe_fault_words(fault->target);

        error_setg(errp, "'%s' does not say what goes wrong, choose from: %s",
                   text, choices);
        return NULL;
    }
    if ((fault->given & KEY(STATUS)) &&
        (fault->kind >= 0 || (fault->given & (KEY(SOURCE) | KEY(LENGTH))))) {
        error_setg(errp, "'%s': a call that fails with a status returns "
                   "nothing else, leave 'status' out or the rest", text);
        return NULL;
    }
    if (fault->target == HVPIPE_FAULT_CHECK_EXCEPTION && fault->kind >= 0) {
        fault->kind = -1;
        fault->given |= KEY(STATUS);
        fault->value[HVPIPE_FAULT_STATUS] = RTAS_OUT_NO_ERRORS_FOUND;
    }
    return g_steal_pointer(&fault);
}

static char *hvpipe_print_fault(const HvpipeFault *fault)
{
    GString *text = g_string_new(hvpipe_fault_targets[fault->target].name);
    char separator = ':';
    int i;

    if (fault->kind >= 0) {
        g_auto(GStrv) kinds =
            g_strsplit(hvpipe_fault_targets[fault->target].kinds, " ", 0);

        g_string_append_printf(text, ":%s", kinds[fault->kind]);
        separator = ',';
    }
    for (i = 0; i < HVPIPE_FAULT_KEYS; i++) {
        if ((fault->given & (1u << i)) || i == HVPIPE_FAULT_COUNT) {
            g_string_append_printf(text, i == HVPIPE_FAULT_SOURCE ?
                                   "%c%s=0x%08" PRIx64 : "%c%s=%" PRId64,
                                   separator, hvpipe_fault_keys[i],
                                   fault->value[i]);
            separator = ',';
        }
    }
    return g_string_free(text, FALSE);
}

GSList *hvpipe_faults_parse(const char *text, Error **errp)
{
    g_auto(GStrv) texts = g_strsplit(text, ";", 0);
    GSList *faults = NULL;
    int i;

    for (i = 0; texts[i]; i++) {
        HvpipeFault *fault = hvpipe_parse_fault(texts[i], errp);

        if (!fault) {
            hvpipe_faults_free(faults);
            return NULL;
        }
        faults = g_slist_append(faults, fault);
    }
    return faults;
}

char *hvpipe_faults_print(GSList *faults)
{
    GString *text = g_string_new(NULL);

    for (; faults; faults = faults->next) {
        g_autofree char *fault = hvpipe_print_fault(faults->data);

        g_string_append_printf(text, "%s%s", text->len ? ";" : "", fault);
    }
    return g_string_free(text, FALSE);
}

bool hvpipe_faults_strike(GSList **faults, HvpipeFaultTarget target,
                          uint32_t keys, HvpipeFault *strike)
{
    GSList *item;

    for (item = *faults; item; item = item->next) {
        HvpipeFault *fault = item->data;

        if (fault->target != target || (keys && !(fault->given & keys))) {
            continue;
        }
        if (++fault->seen % fault->value[HVPIPE_FAULT_EVERY]) {
            continue;
        }
        *strike = *fault;
        trace_spapr_hvpipe_fault(hvpipe_fault_targets[target].name);
        /* A count of 0 has no end */
        if (fault->value[HVPIPE_FAULT_COUNT] &&
            !--fault->value[HVPIPE_FAULT_COUNT]) {
            *faults = g_slist_delete_link(*faults, item);
            g_free(fault);
        }
        return true;
    }
    return false;
}

bool hvpipe_faults_any(GSList *faults, HvpipeFaultTarget target)
{
    for (; faults; faults = faults->next) {
        if (((HvpipeFault *)faults->data)->target == target) {
            return true;
        }
    }
    return false;
}
