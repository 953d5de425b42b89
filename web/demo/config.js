// Where minigate is. On a phone: https, a domain of the white lists, no port.
module.exports = {
  baseUrl: 'http://127.0.0.1:8080',
  // A code `minigate dev` takes in place of one of the real wx.login; remove
  // it where minigate knows your mini-program's AppSecret.
  devCode: 'sim:demo',
};
