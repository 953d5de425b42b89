package wechat

import (
	"encoding/json"
	"errors"
	"strconv"
)

// WeChat writes some fields as a number on one page and as a string on the
// next. text and number take either; null is "" and 0.

type text string

// UnmarshalJSON takes a string or a number.
func (t *text) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*t = ""
		return nil
	}
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, (*string)(t))
	}
	var n json.Number
	if json.Unmarshal(data, &n) != nil {
		return errors.New("neither text nor a number")
	}
	*t = text(n)
	return nil
}

type number int64

// UnmarshalJSON takes a whole number, or a string of one.
func (n *number) UnmarshalJSON(data []byte) error {
	var t text
	if err := t.UnmarshalJSON(data); err != nil {
		return err
	}
	if t == "" {
		*n = 0
		return nil
	}
	i, err := strconv.ParseInt(string(t), 10, 64)
	if err != nil {
		return errors.New("not a whole number")
	}
	*n = number(i)
	return nil
}
