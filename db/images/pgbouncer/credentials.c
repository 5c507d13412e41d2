/*
 * What PgBouncer's entry point needs and Debian's smallest image has no program for, by OpenSSL,
 * which PgBouncer itself brings.
 *
 *   credentials verifier           prints the SCRAM verifier of the password on standard input
 *   credentials certificate NAME   writes key.pem and certificate.pem, self-signed, for that host
 *
 * Neither a password nor a key is ever an argument. db/scram.py makes the same verifiers; a test
 * compares the two.
 */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	ITERATIONS = 4096, /* PostgreSQL 15's own */
	SALT_BYTES = 16,
	DIGEST_BYTES = 32,
	/* Longer than any task lives: a new task makes a new one. */
	DAYS = 3650
};

static void fail(const char *what)
{
	fprintf(stderr, "credentials: %s\n", what);
	exit(1);
}

static void must(int condition, const char *what)
{
	if (!condition)
		fail(what);
}

static void print_base64(const unsigned char *bytes, int length)
{
	unsigned char text[4 * ((DIGEST_BYTES + 2) / 3) + 1];

	EVP_EncodeBlock(text, bytes, length);
	fputs((const char *)text, stdout);
}

static void print_verifier(void)
{
	char password[1024];
	unsigned char salt[SALT_BYTES], salted[DIGEST_BYTES], client[DIGEST_BYTES],
		stored[DIGEST_BYTES], server[DIGEST_BYTES];
	size_t length = fread(password, 1, sizeof password, stdin);

	must(length > 0 && length < sizeof password, "the password is empty or too long");
	for (size_t i = 0; i < length; i++)
		/* SASLprep would change anything else. */
		must(password[i] >= ' ' && password[i] <= '~', "a password must be printable ASCII");
	must(RAND_bytes(salt, sizeof salt) == 1, "no random numbers");
	must(PKCS5_PBKDF2_HMAC(password, (int)length, salt, sizeof salt, ITERATIONS, EVP_sha256(),
			       sizeof salted, salted) == 1, "PBKDF2");
	HMAC(EVP_sha256(), salted, sizeof salted, (const unsigned char *)"Client Key", 10, client, NULL);
	EVP_Digest(client, sizeof client, stored, NULL, EVP_sha256(), NULL);
	HMAC(EVP_sha256(), salted, sizeof salted, (const unsigned char *)"Server Key", 10, server, NULL);
	printf("SCRAM-SHA-256$%d:", ITERATIONS);
	print_base64(salt, sizeof salt);
	putchar('$');
	print_base64(stored, sizeof stored);
	putchar(':');
	print_base64(server, sizeof server);
	putchar('\n');
}

static void add_extension(X509 *certificate, int kind, const char *value)
{
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, kind, value);

	must(extension && X509_add_ext(certificate, extension, -1), value);
	X509_EXTENSION_free(extension);
}

static FILE *create(const char *name)
{
	FILE *file = fopen(name, "wx");

	if (!file) {
		perror(name);
		exit(1);
	}
	return file;
}

static void write_certificate(const char *host)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	X509_NAME *name = X509_NAME_new();
	unsigned char serial[8];
	char alternative[300];
	FILE *file;

	must(key && certificate && name, "no key");
	must(snprintf(alternative, sizeof alternative, "DNS:%s", host) < (int)sizeof alternative, host);
	must(RAND_bytes(serial, sizeof serial) == 1, "no random numbers");
	serial[0] &= 0x7f;
	X509_set_version(certificate, X509_VERSION_3);
	ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), *(uint64_t *)serial);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
	X509_time_adj_ex(X509_getm_notAfter(certificate), DAYS, 0, NULL);
	must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)host, -1, -1,
					0), host);
	X509_set_subject_name(certificate, name);
	X509_set_issuer_name(certificate, name);
	X509_set_pubkey(certificate, key);
	add_extension(certificate, NID_subject_alt_name, alternative);
	must(X509_sign(certificate, key, EVP_sha256()) > 0, "it cannot be signed");
	file = create("key.pem");
	must(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) && !fclose(file), "key.pem");
	file = create("certificate.pem");
	must(PEM_write_X509(file, certificate) && !fclose(file), "certificate.pem");
}

int main(int count, char **arguments)
{
	if (count == 2 && !strcmp(arguments[1], "verifier"))
		print_verifier();
	else if (count == 3 && !strcmp(arguments[1], "certificate"))
		write_certificate(arguments[2]);
	else
		fail("use: verifier, or certificate NAME");
	return 0;
}
