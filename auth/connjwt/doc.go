// Package connjwt verifies connection and subscription tokens of Centrifugo: JSON
// Web Tokens (RFC 7519) that a business backend signs for its own users. They
// are an alternative to the login token of package auth, and off by default.
//
// Claims and their meaning are Centrifugo's, see
// https://centrifugal.dev/docs/server/authentication and
// https://centrifugal.dev/docs/server/channel_token_auth.
//
// A key decides what it can verify, never the token: a secret verifies HS
// tokens, an RSA key RS tokens, an ECDSA key the ES algorithm of its curve, an
// Ed25519 key EdDSA. So no public key can be passed off as a secret, and there
// is no "none".
package connjwt
