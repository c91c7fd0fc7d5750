#!/bin/sh
# Makes the certificates of the TLS tests; needs openssl 3. They end in a hundred years.
# ca.pem, cert.pem and key.pem are named as Docker's clients want them.
set -eu
cd "$(dirname "$0")"
days=36500
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
# sign NAME SUBJECT EXTENSIONS: NAME.pem of NAME.key, by ca.pem; without extensions it is X.509 v1
sign() {
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    if [ -n "$3" ]; then
        printf '%b' "$3" > "$1.ext"
        openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -days $days -sha256 -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    else
        openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -days $days -sha256 -out "$1.pem" 2>/dev/null
    fi
    rm -f "$1.csr" "$1.ext"
}
san='subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\n'
serves='basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n'

for ca in ca other-ca; do
    key $ca.key
    openssl req -x509 -new -key $ca.key -subj "/CN=$ca" -days $days -sha256 -out $ca.pem
done
for name in server server-no-san server-v1 server-client-only server-dns-only; do key $name.key; done
sign server /CN=daemon "$san$serves"
sign server-no-san /CN=localhost "$serves"
sign server-v1 /CN=localhost ''
sign server-client-only /CN=daemon "${san}basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n"
sign server-dns-only /CN=daemon "subjectAltName=DNS:localhost\n$serves"
key server-expired.key
openssl req -new -key server-expired.key -subj /CN=daemon -out expired.csr
printf '%b' "$san$serves" > expired.ext
mkdir -p db && : > db/index.txt && echo 01 > db/serial
openssl ca -batch -config /dev/stdin -in expired.csr -out server-expired.pem -startdate 20200101000000Z -enddate 20210101000000Z -notext -extfile expired.ext 2>/dev/null <<CONF
[ca]
default_ca=x
[x]
database=db/index.txt
serial=db/serial
new_certs_dir=db
certificate=ca.pem
private_key=ca.key
default_md=sha256
policy=p
[p]
commonName=supplied
CONF
rm -rf db expired.csr expired.ext
key server-is-ca.key
openssl req -x509 -new -key server-is-ca.key -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -days $days -out server-is-ca.pem

# Our own certificate, with a key of each kind.
uses='extendedKeyUsage=clientAuth\n'
openssl genrsa -traditional -out client-pkcs1.key 2048 2>/dev/null
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out client-pkcs8.key 2>/dev/null
openssl ecparam -name prime256v1 -genkey -out client-sec1.key
openssl genpkey -algorithm ED25519 -out client-ed25519.key
key client-v1.key
for kind in pkcs1 pkcs8 sec1 ed25519; do sign client-$kind "/CN=client-$kind" "$uses"; done
sign client-v1 /CN=client-v1 ''
openssl rsa -aes128 -traditional -passout pass:secret -in client-pkcs1.key -out client-encrypted-pkcs1.key 2>/dev/null
openssl pkcs8 -topk8 -v2 aes-128-cbc -passout pass:secret -in client-pkcs8.key -out client-encrypted-pkcs8.key
openssl ecparam -name secp521r1 -genkey -noout -out client-p521.key
sign client-p521 /CN=client-p521 "$uses"
cp client-pkcs1.pem cert.pem
cp client-pkcs1.key key.pem
rm -f ca.key other-ca.key ca.srl other-ca.srl
