/* A token from a client that nobody knows yet. */
#include "kerberos/ticket.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void printable(const char *text, size_t bytes)
{
    assert(memchr(text, 0, bytes));
    for (; *text; text++)
        assert(*text >= 0x20 && *text <= 0x7e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const allowed[] = { "SMTPSVC/mail.corp.test", "smtp/mail.corp.test@CORP.TEST" };
    char number[24];
    struct krb_ticket ticket;
    bool found = krb_ticket_read(str_slice(data, n), &ticket);
    krb_token_is_spnego(str_slice(data, n));
    printable(ticket.service, sizeof ticket.service);
    printable(ticket.realm, sizeof ticket.realm);
    assert(found == (ticket.service[0] != 0));
    assert(krb_enctype_name(ticket.enctype, number, sizeof number)[0]);
    krb_service_allowed(str_of(ticket.service), str_of(ticket.realm), allowed, 2);
    return 0;
}
