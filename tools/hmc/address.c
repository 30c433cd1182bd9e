// SPDX-License-Identifier: GPL-2.0-or-later
/* Addresses of sources' sockets, and names of sources. */
#include "address.h"

#include <gio/gunixsocketaddress.h>
#include <string.h>
#include <sys/un.h>

#define TYPE_HMC 0x0200 /* the upper half of an HMC's source ID */

static GSocketConnectable *parse_unix(const char *path, GError **error)
{
	if (!*path || strlen(path) >= sizeof(((struct sockaddr_un *)NULL)->sun_path)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "address '%s': a path of %zu bytes; a socket's has 1 to %zu, "
			    "so a shorter one is needed (a relative one, say)",
			    path, strlen(path), sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1);
		return NULL;
	}
	return G_SOCKET_CONNECTABLE(g_unix_socket_address_new(path));
}

static GSocketConnectable *parse_tcp(const char *text, GError **error)
{
	const char *colon = strrchr(text, ':');
	GSocketConnectable *target;
	guint64 port;

	if (!colon || colon == text || !g_ascii_string_to_unsigned(colon + 1, 10, 1, 65535, &port, NULL)) {
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "address '%s': HOST:PORT with a port from 1 to 65535 is needed", text);
		return NULL;
	}
	target = g_network_address_parse(text, port, NULL);
	if (!target)
		g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
			    "address '%s': no host name or IP address (write IPv6 as "
			    "[::1]:4321)",
			    text);
	return target;
}

GSocketConnectable *hmc_address_parse(const char *address, GError **error)
{
	const char *colon = strrchr(address, ':');

	if (g_str_has_prefix(address, "unix:"))
		return parse_unix(address + strlen("unix:"), error);
	if (g_str_has_prefix(address, "tcp:"))
		return parse_tcp(address + strlen("tcp:"), error);
	if (colon && colon[1] && strspn(colon + 1, "0123456789") == strlen(colon + 1) && !strchr(address, '/'))
		return parse_tcp(address, error);
	return parse_unix(address, error);
}

char *hmc_source_name(uint32_t source)
{
	return source >> 16 == TYPE_HMC ? g_strdup_printf("hmc%u", source & 0xffff) : g_strdup_printf("0x%08x", source);
}

uint32_t hmc_source_parse(const char *name)
{
	guint64 number;

	if (g_str_has_prefix(name, "hmc") && g_ascii_string_to_unsigned(name + 3, 10, 0, 0xffff, &number, NULL))
		return (uint32_t)TYPE_HMC << 16 | (uint32_t)number;
	if (g_str_has_prefix(name, "0x") && g_ascii_string_to_unsigned(name + 2, 16, 1, UINT32_MAX, &number, NULL))
		return number;
	return 0;
}
