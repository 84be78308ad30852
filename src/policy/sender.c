#include "policy/sender.h"

bool sender_is_restricted(const struct conf *conf, enum conf_send_as send_as)
{
    return send_as == CONF_SEND_AS_OWN || (send_as == CONF_SEND_AS_AUTO && conf->n_identities > 0);
}

bool sender_text(const struct identity_result *result, struct buf *into)
{
    size_t begin = into->n;
    for (size_t i = 1; i < result->n_addresses; i++) {
        struct str address = str_of(result->address[i]);
        if (into->n - begin + address.n + 1 > SENDER_TEXT_MAX)
            return false;
        if (into->n > begin)
            buf_add_char(into, ' ');
        buf_add(into, address);
    }
    return !into->failed;
}

/* "*@domain" is all of a domain. */
static bool fits(struct str address, struct str sender)
{
    if (address.n == 0)
        return false;
    if (!str_starts(address, STR("*@")))
        return str_eq_nocase(address, sender);
    struct str domain = str_skip(address, 1);
    return sender.n > domain.n && str_eq_nocase(str_skip(sender, sender.n - domain.n), domain);
}

bool sender_is_allowed(struct str mailbox, struct str senders, uint32_t rights, struct str sender)
{
    if (sender.n == 0 || rights & IDENTITY_ANY_SENDER || fits(mailbox, sender))
        return true;
    struct str address;
    for (bool more = senders.n > 0; more;) {
        more = str_cut(&senders, ' ', &address);
        if (fits(address, sender))
            return true;
    }
    return false;
}
