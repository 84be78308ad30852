#include "sasl/client.h"

#include "base/secret.h"

struct sasl_client {
    const struct sasl_client_ops *ops;
    void *state;
};

int sasl_client_new(const struct sasl_mechanism *mechanism, const struct sasl_client_options *options,
                    struct sasl_client **ret_client, struct err *err)
{
    *ret_client = NULL;
    if (!mechanism->client)
        return err_set(err, ERR_AUTH, "there is no client side of %s here", mechanism->name);
    if ((mechanism->flags & SASL_BINDING) && options->binding.cert_hash.n == 0 && options->binding.exporter.n == 0)
        return err_set(err, ERR_AUTH, "%s needs a TLS channel to bind to", mechanism->name);
    struct sasl_client *client = calloc(1, sizeof *client);
    if (!client)
        return err_errno(err, ENOMEM, "%s", mechanism->name);
    client->ops = mechanism->client;
    client->state = calloc(1, client->ops->state_bytes);
    int rc = client->state ? client->ops->init(client->state, mechanism, options, err)
                           : err_errno(err, ENOMEM, "%s", mechanism->name);
    if (rc < 0) {
        sasl_client_free(&client);
        return rc;
    }
    *ret_client = client;
    return 0;
}

void sasl_client_free(struct sasl_client **client)
{
    struct sasl_client *c = *client;
    if (!c)
        return;
    if (c->state) {
        if (c->ops->done)
            c->ops->done(c->state);
        secret_wipe(c->state, c->ops->state_bytes);
        free(c->state);
    }
    free(c);
    *client = NULL;
}

bool sasl_client_first(struct sasl_client *client, struct str *ret_response)
{
    *ret_response = STR_NONE;
    return client->ops->first(client->state, ret_response);
}

int sasl_client_step(struct sasl_client *client, struct str challenge, struct str *ret_response, struct err *err)
{
    *ret_response = STR_NONE;
    if (challenge.n > SASL_MESSAGE_MAX)
        return err_set(err, ERR_AUTH, "the server's challenge has %zu octets", challenge.n);
    return client->ops->step(client->state, challenge, ret_response, err);
}

bool sasl_client_complete(const struct sasl_client *client)
{
    return client->ops->complete(client->state);
}

struct sasl_layer_choice sasl_client_layer(const struct sasl_client *client)
{
    if (!client->ops->layer || !client->ops->complete(client->state))
        return (struct sasl_layer_choice){ .kind = SASL_LAYER_NONE };
    return client->ops->layer(client->state);
}

bool sasl_client_layer_state(struct sasl_client *client, struct buf *out)
{
    return client->ops->layer_state && client->ops->layer_state(client->state, out);
}
