package wxsim

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// The published vectors: developers.weixin.qq.com, "open-ability/signature"
// and, for sign, "minigame http-signature".

func TestSignVector(t *testing.T) {
	got := sign("o0q0otL8aEzpcZL/FT9WsQ==", `{"foo":"bar"}`)
	if want := "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b"; got != want {
		t.Errorf("sign = %s, want %s", got, want)
	}
}

func TestSignatureVector(t *testing.T) {
	raw := `{"nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/1vZvI39NWFQ9XM4LtQpFrQJ1xlgZxx3w7bQxKARol6503Iuswjjn6nIGBiaycAjAtpujxyzYsrztuuICqIM5ibXQ/0"}`
	if got, want := signature([]byte(raw), "HyVFkGl5F5OQWJZZaNzBBg=="), "75e81ceda165f4ffa64f4068af58c64b8f54b88c"; got != want {
		t.Errorf("signature = %s, want %s", got, want)
	}
}

func TestEncryptVector(t *testing.T) {
	plain := `{"openId":"oGZUI0egBJY1zhBYw2KhdUfwVJJE","nickName":"Band","gender":1,"language":"zh_CN","city":"Guangzhou","province":"Guangdong","country":"CN","avatarUrl":"http://wx.qlogo.cn/mmopen/vi_32/aSKcBBPpibyKNicHNTMM0qJVh8Kjgiak2AHWr8MHM4WgMEm7GFhsf8OYrySdbvAMvTsw3mo8ibKicsnfN5pRjl1p8HQ/0","unionId":"ocMvos6NjeKLIBqg5Mr9QjxrP1FA","watermark":{"timestamp":1477314187,"appid":"wx4f4bc4dec97d474b"}}`
	iv, _ := base64.StdEncoding.DecodeString("r7BXXKkLb8qrSNn05n0qiA==")
	out, err := encrypt("tiihtNczf5v6AKRyjwEUhQ==", iv, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	want := "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOETKUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXwu0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UIeorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYVoKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew=="
	if got := base64.StdEncoding.EncodeToString(out); got != want {
		t.Errorf("encrypted sha256 %x differs from the published text", sha256.Sum256(out))
	}
}

func TestOpenDataEndpoint(t *testing.T) {
	b := newBench(t)
	if w, v := b.do(http.MethodPost, "/sim/opendata", `{"appid":"`+appA+`","user":"ann"}`); w.Code != http.StatusConflict {
		t.Fatalf("before any login: %d %v", w.Code, v)
	}
	b.redeem(appA, secretA, "sim:ann")
	key := b.redeem(appA, secretA, "sim:ann")["session_key"].(string) // the current one
	for data, wantOpenID := range map[string]any{"": OpenID(appA, "ann"), `,"data":{ "stepInfoList": [1] }`: nil} {
		v := b.post("/sim/opendata", `{"appid":"`+appA+`","user":"ann"`+data+`}`)
		raw := v["rawData"].(string)
		if v["signature"] != signature([]byte(raw), key) {
			t.Errorf("signature does not cover %q", raw)
		}
		if data != "" && raw != `{ "stepInfoList": [1] }` {
			t.Errorf("rawData %q is not what was given", raw)
		}
		var opened map[string]any
		if err := json.Unmarshal(decrypt(t, key, v["iv"].(string), v["encryptedData"].(string)), &opened); err != nil {
			t.Fatal(err)
		}
		mark, _ := opened["watermark"].(map[string]any)
		if mark["appid"] != appA || mark["timestamp"] != float64(b.clock.Unix()) || opened["openId"] != wantOpenID {
			t.Errorf("decrypted %v", opened)
		}
	}
}

func TestSimMalformed(t *testing.T) {
	b := newBench(t)
	for name, tc := range map[string]struct {
		path, body string
		status     int
	}{
		"no body":       {"/sim/login", "", 400},
		"not JSON":      {"/sim/login", "{", 400},
		"unknown appid": {"/sim/login", `{"appid":"wxff","user":"ann"}`, 400},
		"no user":       {"/sim/phone", `{"appid":"` + appA + `"}`, 400},
		"odd user":      {"/sim/phone", `{"appid":"` + appA + `","user":"a/b"}`, 400},
		"data no map":   {"/sim/opendata", `{"appid":"` + appA + `","user":"ann","data":[1]}`, 400},
		"too large":     {"/sim/opendata", `{"user":"` + strings.Repeat("a", maxBody) + `"}`, 413},
	} {
		t.Run(name, func(t *testing.T) {
			if w, v := b.do(http.MethodPost, tc.path, tc.body); w.Code != tc.status {
				t.Errorf("%d %v, want %d", w.Code, v, tc.status)
			}
		})
	}
}

func decrypt(t *testing.T, key, iv, data string) []byte {
	t.Helper()
	var raw [3][]byte
	for i, s := range []string{key, iv, data} {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		raw[i] = b
	}
	block, err := aes.NewCipher(raw[0])
	if err != nil {
		t.Fatal(err)
	}
	out := raw[2]
	cipher.NewCBCDecrypter(block, raw[1]).CryptBlocks(out, out)
	pad := int(out[len(out)-1])
	if tail := hex.EncodeToString(out[len(out)-pad:]); tail != strings.Repeat(hex.EncodeToString([]byte{byte(pad)}), pad) {
		t.Fatalf("padding %s", tail)
	}
	return out[:len(out)-pad]
}
