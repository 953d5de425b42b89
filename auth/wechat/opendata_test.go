package wechat

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// The vectors that WeChat publishes: framework/open-ability/signature and, for
// sign, the mini-games' http-signature.
const (
	sampleAppID = "wx4f4bc4dec97d474b"
	sampleKey   = "tiihtNczf5v6AKRyjwEUhQ=="
	sampleIV    = "r7BXXKkLb8qrSNn05n0qiA=="
	sampleData  = "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew=="

	signedKey = "HyVFkGl5F5OQWJZZaNzBBg=="
	signedRaw = `{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}`
	signature = "75e81ceda165f4ffa64f4068af58c64b8f54b88c"
)

func TestSignVector(t *testing.T) {
	for data, want := range map[string]string{
		`{"foo":"bar"}`: "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b",
	} {
		if got := sign("o0q0otL8aEzpcZL/FT9WsQ==", data); got != want {
			t.Errorf("sign(%q) = %s, want %s", data, got, want)
		}
	}
	if got, want := sign(sampleKey, ""), "7154f9f8b4b76b92f541cbf0e37d48840fa06e5e42da92a6f80168a1516a4735"; got != want {
		t.Errorf("sign of nothing = %s, want %s", got, want)
	}
}

func TestCheckSignature(t *testing.T) {
	if !CheckSignature(signedRaw, signature, signedKey) {
		t.Error("the published vector is refused")
	}
	for name, bad := range map[string][3]string{
		"other data":       {strings.Replace(signedRaw, "Band", "Bind", 1), signature, signedKey},
		"reordered spaces": {strings.Replace(signedRaw, ":1,", ": 1,", 1), signature, signedKey},
		"other key":        {signedRaw, signature, sampleKey},
		"upper case":       {signedRaw, strings.ToUpper(signature), signedKey},
		"cut off":          {signedRaw, signature[:39], signedKey},
		"empty":            {signedRaw, "", signedKey},
		"moved border":     {signedRaw + signedKey[:1], signature, signedKey[:1] + signedKey[1:]},
	} {
		if CheckSignature(bad[0], bad[1], bad[2]) {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestOpenVector(t *testing.T) {
	c, err := ParseCiphertext(sampleData, sampleIV)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // opening changes nothing
		d, err := c.Open(sampleKey)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(d.JSON)
		if got := hex.EncodeToString(sum[:]); got != "3237d8a5dbd413523c194882c7156544d8a06e2afcc97383cc300c17bd09391b" {
			t.Errorf("decrypted %s, sha256 %s", d.JSON, got)
		}
		if d.OpenID != "oGZUI0egBJY1zhBYw2KhdUfwVJJE" || d.AppID != sampleAppID || !d.At.Equal(time.Unix(1477314187, 0)) {
			t.Errorf("read %+v", d)
		}
	}
}

// A forged iv decrypts to good JSON with somebody else's openid. Only who
// compares the openid finds out.
func TestForgedIV(t *testing.T) {
	c, err := ParseCiphertext(sampleData, "r7BXXKkLb8qrSNne924z4A==")
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.Open(sampleKey)
	if err != nil || d.OpenID != "EVIL!0egBJY1zhBYw2KhdUfwVJJE" || d.AppID != sampleAppID {
		t.Errorf("read %+v, %v", d, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	// The copy of the vector that is in circulation with a corrupt iv.
	c, _ := ParseCiphertext(sampleData, "r7BXXKkLb8qrSNn05n94bw==")
	if d, err := c.Open(sampleKey); err == nil && d.OpenID == "oGZUI0egBJY1zhBYw2KhdUfwVJJE" {
		t.Error("the corrupt copy of the vector gives the right openid")
	}
	c, _ = ParseCiphertext(sampleData, sampleIV)
	for name, key := range map[string]string{"other key": signedKey, "no base64": "!", "short key": "AAAA", "long key": sampleKey[:22] + "AA" + sampleKey[22:]} {
		if _, err := c.Open(key); err != errOpenData {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, plain := range map[string]string{
		"not JSON":     `hello`,
		"array":        `[{"watermark":{"appid":"wx","timestamp":1}}]`,
		"cut off":      `{"watermark":{"appid":"wx","timestamp":1}`,
		"no watermark": `{"openId":"o"}`,
		"no appid":     `{"watermark":{"timestamp":1}}`,
		"no time":      `{"watermark":{"appid":"wx"}}`,
		"empty":        ``,
	} {
		if _, err := encryptFor(t, pad(plain, 16)).Open(sampleKey); err != errOpenData {
			t.Errorf("%s: %v", name, err)
		}
	}
	const good = `{"watermark":{"appid":"wx","timestamp":"1"}} `
	for name, padded := range map[string]string{
		"no padding":   good[:len(good)-len(good)%16],
		"zero":         pad(good, 16)[:47] + "\x00",
		"too long":     pad(good, 16)[:47] + "\x11",
		"one byte off": pad(good, 16)[:46] + "\x02\x03",
	} {
		if _, err := encryptFor(t, padded).Open(sampleKey); err != errOpenData {
			t.Errorf("padding %s: %v", name, err)
		}
	}
	if _, err := encryptFor(t, pad(good, 16)).Open(sampleKey); err != nil {
		t.Errorf("good data: %v", err)
	}
}

func pad(text string, block int) string {
	n := block - len(text)%block
	return text + strings.Repeat(string(rune(n)), n)
}

func encryptFor(t *testing.T, padded string) *Ciphertext {
	t.Helper()
	key, _ := base64.StdEncoding.DecodeString(sampleKey)
	iv, _ := base64.StdEncoding.DecodeString(sampleIV)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte(padded)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	return &Ciphertext{data, iv}
}

func TestParseCiphertext(t *testing.T) {
	block := base64.StdEncoding.EncodeToString(make([]byte, 16))
	for name, in := range map[string][2]string{
		"no data": {"", block}, "no iv": {block, ""}, "short iv": {block, block[:20]}, "long iv": {block, base64.StdEncoding.EncodeToString(make([]byte, 32))},
		"half a block": {base64.StdEncoding.EncodeToString(make([]byte, 24)), block}, "no base64": {"*" + block[1:], block},
		"too long": {base64.StdEncoding.EncodeToString(make([]byte, maxCiphertext+16)), block},
		"URL-safe": {strings.Repeat("_", 21) + "==", block},
	} {
		if _, err := ParseCiphertext(in[0], in[1]); err != ErrCiphertext {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseCiphertext(base64.StdEncoding.EncodeToString(make([]byte, maxCiphertext)), block); err != nil {
		t.Errorf("the longest: %v", err)
	}
}

func TestUnpad(t *testing.T) {
	for _, size := range []int{16, 32} {
		for n := range 2 * size {
			plain := bytes.Repeat([]byte("x"), n)
			got, ok := unpad([]byte(pad(string(plain), size)), size)
			if !ok || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes in blocks of %d: %q, %v", n, size, got, ok)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(sampleData, sampleIV, sampleKey)
	f.Add(sampleData, "r7BXXKkLb8qrSNne924z4A==", sampleKey)
	f.Add("AAAAAAAAAAAAAAAAAAAAAA==", sampleIV, signedKey)
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, data, iv, key string) {
		c, err := ParseCiphertext(data, iv)
		if err != nil {
			return
		}
		d, err := c.Open(key)
		if (d == nil) == (err == nil) {
			t.Fatalf("%v with error %v", d, err)
		}
		if err == nil && (d.AppID == "" || d.JSON[0] != '{') {
			t.Errorf("took %+v", d)
		}
	})
}

func FuzzDecodeOpenData(f *testing.F) {
	for _, seed := range []string{
		`{"openId":"o","watermark":{"timestamp":1477314187,"appid":"wx"}}`, `{"watermark":{"timestamp":"1","appid":"wx"}}`,
		`{"openId":1}`, `{"openId":null,"watermark":null}`, `{}`, `[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		if d, err := decodeOpenData(plain); err == nil && (d.AppID == "" || !d.At.After(time.Unix(0, 0))) {
			t.Errorf("took %q as %+v", plain, d)
		}
	})
}

func FuzzCheckSignature(f *testing.F) {
	f.Add(signedRaw, signature, signedKey)
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, raw, sig, key string) {
		if CheckSignature(raw, sig, key) && CheckSignature(raw+" ", sig, key) {
			t.Errorf("%q signs two texts", sig)
		}
	})
}
