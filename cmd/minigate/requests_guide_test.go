package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// The code that docs/proxy.md offers, run as it stands there. Each program is
// given the address of the keys and some tokens, and says of each whether it
// is good, and who the first one is.

const identityKey = "01234567890123456789012345678904" // signs; any 32 bytes are a key of P-256

// badIdentities are tokens that are signed with minigate's own key, but for
// one each. The page's code has to refuse all of them.
func badIdentities(t *testing.T, good string) []string {
	change := func(name string, value any) string {
		return resigned(t, good, func(header, claims map[string]any) {
			part := claims
			if slices.Contains([]string{"typ", "alg", "kid"}, name) {
				part = header
			}
			if part[name] == nil {
				t.Errorf("%s is not there", name)
			}
			part[name] = value
			if value == nil {
				delete(part, name)
			}
		})
	}
	parts := strings.Split(good, ".")
	return []string{
		change("typ", "JWT"), change("typ", nil),
		change("alg", "ES384"), change("alg", "none"), change("alg", nil),
		change("kid", "nobody"), change("kid", nil),
		change("iss", "somebody"), change("iss", nil), change("aud", nil),
		change("exp", time.Now().Add(-time.Second).Unix()), change("exp", nil),
		resigned(t, good, func(_, claims map[string]any) { // what users may have a say in
			claims["aud"], claims["claims"] = "other", map[string]any{"aud": "app", "x": `","aud":"app"`}
		}),
		parts[0] + "." + parts[1] + ".", parts[0] + "." + parts[1], good + ".", good[:len(good)-8],
		parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
	}
}

// resigned is a token with another header and other claims, signed anew.
func resigned(t *testing.T, token string, change func(header, claims map[string]any)) string {
	t.Helper()
	enc, parts := base64.RawURLEncoding, strings.Split(token, ".")
	var header, claims map[string]any
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := enc.DecodeString(parts[i])
		if err != nil || json.Unmarshal(text, into) != nil {
			t.Fatalf("the token is %q", token)
		}
	}
	for _, name := range []string{"iat", "exp"} {
		seconds, _ := claims[name].(float64)
		claims[name] = int64(seconds)
	}
	if change != nil {
		change(header, claims)
	}
	for i, from := range []map[string]any{header, claims} {
		text, err := json.Marshal(from)
		if err != nil {
			t.Fatal(err)
		}
		parts[i] = enc.EncodeToString(text)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), []byte(identityKey))
	if err != nil {
		t.Fatal(err)
	}
	signed := []byte(parts[0] + "." + parts[1])
	sum := sha256.Sum256(signed)
	hash := sum[:]
	if header["alg"] == "ES384" { // as it says, though with a key of P-256
		long := sha512.Sum384(signed)
		hash = long[:]
	}
	r, s, err := ecdsa.Sign(rand.Reader, key, hash)
	if err != nil {
		t.Fatal(err)
	}
	return parts[0] + "." + parts[1] + "." + enc.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

func runDocumentedJS(t *testing.T, jwks string, tokens ...string) string {
	script := documented(t, "proxy", "js", "const { createPublicKey") + `
const [jwks, ...tokens] = process.argv.slice(1)
const expected = { jwks, issuer: 'minigate', audience: 'app' }
Promise.all(tokens.map((t) => identity(t, expected))).then((all) => console.log(...all.map((c) => c !== null), all[0].sub))`
	out, err := exec.Command("node", append([]string{"-e", script, jwks}, tokens...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return string(out)
}

func runDocumentedGo(t *testing.T, jwks string, tokens ...string) string {
	code := strings.Replace(documented(t, "proxy", "go", "package identity"), "package identity", "package main", 1)
	dir := t.TempDir()
	main := `package main

import (
	"fmt"
	"os"
)

func main() {
	v := Verifier{JWKS: os.Args[1], Issuer: "minigate", Audience: "app"}
	user := ""
	for i, token := range os.Args[2:] {
		c, err := v.Verify(token)
		if i == 0 {
			user = c.Subject
		}
		fmt.Print(err == nil, " ")
	}
	fmt.Println(user)
}
`
	files := []string{filepath.Join(dir, "identity.go"), filepath.Join(dir, "main.go")}
	for i, text := range []string{code, main} {
		if err := os.WriteFile(files[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"run"}, files...)
	args = append(args, jwks)
	out, err := exec.Command("go", append(args, tokens...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return string(out)
}

// checkedIdentityJava is as checkedJava, for docs/proxy.md.
const checkedIdentityJava = "3ee7d746c632c7883ac01fbdf71cdb42a0fa5d5cba5625dfcf214dc7c7c6acc2"

func runDocumentedJava(t *testing.T, jwks string, tokens ...string) string {
	code := documented(t, "proxy", "java", "// Java 17")
	return guest{"Check.java", "", `
class Check {
    public static void main(String[] args) throws Exception {
        MinigateIdentity minigate = new MinigateIdentity(args[0], "minigate", "app");
        for (int i = 1; i < args.length; i++) System.out.print((minigate.verify(args[i]) != null) + " ");
        System.out.println(minigate.verify(args[1]).get("sub"));
    }
}
`, []string{"java"}}.output(t, code, append([]string{jwks}, tokens...)...)
}

func runDocumentedPHP(t *testing.T, jwks string, tokens ...string) string {
	code := documented(t, "proxy", "php", "// identity")
	return guest{"check.php", "<?php\ndeclare(strict_types=1);\n", `
foreach (array_slice($argv, 2) as $token) {
    echo identity($token, $argv[1], 'minigate', 'app') ? 'true ' : 'false ';
}
echo identity($argv[2], $argv[1], 'minigate', 'app')['sub'], "\n";
`, []string{"php"}}.output(t, code, append([]string{jwks}, tokens...)...)
}

// runDocumentedPython takes Debian's own Python, which has the package.
func runDocumentedPython(t *testing.T, jwks string, tokens ...string) string {
	code := documented(t, "proxy", "python", "import jwt")
	return guest{"check.py", "", `
import sys
minigate = Minigate(sys.argv[1], "minigate", "app")
callers = [minigate.identity(token) for token in sys.argv[2:]]
print(*[str(c is not None).lower() for c in callers], callers[0]["sub"])
`, []string{"/usr/bin/python3"}}.output(t, code, append([]string{jwks}, tokens...)...)
}

// output is what the program made of code says.
func (g guest) output(t *testing.T, code string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), g.file)
	if err := os.WriteFile(file, []byte(g.program(code)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(g.run[0], append(slices.Concat(g.run[1:], []string{file}), args...)...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, out)
	}
	return string(out)
}

// checkDocumentedCurl runs the lines for a shell: a request, one that arrives
// as PATCH, and the keys.
func checkDocumentedCurl(t *testing.T, p *program, token string, seen <-chan *http.Request) {
	t.Helper()
	lines := strings.NewReplacer("http://127.0.0.1:8080", p.Public, "http://127.0.0.1:9000", p.Ops).Replace(documented(t, "proxy", "sh", "curl"))
	cmd := exec.Command("sh", "-ec", lines)
	cmd.Env = append(os.Environ(), "TOKEN="+token)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), `{}{}{"keys":[{`) {
		t.Fatalf("%v: curl got %s", err, out)
	}
	for _, want := range []string{"GET /api/orders", "PATCH /api/orders/7"} {
		if r := <-seen; r.Method+" "+r.URL.Path != want || r.Header.Get("X-Minigate-Identity") == "" {
			t.Errorf("%s %s arrived, want %s", r.Method, r.URL.Path, want)
		}
	}
}
