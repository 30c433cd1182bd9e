/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of sources' sockets, and names of sources. */
#ifndef HMC_ADDRESS_H
#define HMC_ADDRESS_H

#include <gio/gio.h>
#include <stdbool.h>
#include <stdint.h>

/* unix:PATH, tcp:HOST:PORT, HOST:PORT, or a path. NULL with @error when it is none. */
GSocketConnectable *hmc_address_parse(const char *address, GError **error);

/* "hmc1" for 0x02000001; other sources by their number. For g_free(). */
char *hmc_source_name(uint32_t source);
/* The source of a name such as "hmc1" or "0x02000001", or 0. */
uint32_t hmc_source_parse(const char *name);

#endif
