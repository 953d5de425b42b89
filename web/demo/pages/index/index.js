const { client } = getApp();
const kept = 20; // messages shown

Page({
  data: { who: '', number: '', state: 'disconnected', draft: '', messages: [], progress: 0, picture: '', file: '', error: '' },

  onLoad() {
    const socket = client.socket();
    const heard = ({ data }) => this.show(`${data.from || 'server'}: ${data.text || JSON.stringify(data)}`);
    socket.on('state', ({ newState }) => this.setData({ state: newState }));
    socket.on('publication', heard); // pushed to this user
    socket.on('message', heard);
    this.room = socket.newSubscription('room:demo');
    this.room.on('publication', heard);
    this.room.subscribe();
  },

  whoami() {
    client.request({
      url: '/api/whoami',
      success: ({ data }) => this.setData({ who: JSON.stringify(data), error: '' }),
      fail: (error) => this.failed(error),
    });
  },

  phone({ detail }) {
    client.phone({
      ...detail,
      success: ({ phoneNumber }) => this.setData({ number: phoneNumber, error: '' }),
      fail: (error) => this.failed(error),
    });
  },

  typed({ detail }) {
    this.setData({ draft: detail.value });
  },

  say() {
    const text = this.data.draft.trim();
    if (!text) return;
    const from = client.session ? client.session.user.openid.slice(-6) : 'me';
    this.room.publish({ from, text }).then(
      () => this.setData({ draft: '' }),
      (error) => this.failed(error),
    );
  },

  async upload() {
    try {
      const { tempFiles } = await wx.chooseMedia({ count: 1, mediaType: ['image'] });
      const { data } = await client.upload({
        filePath: tempFiles[0].tempFilePath,
        size: tempFiles[0].size,
        onProgress: ({ progress }) => this.setData({ progress }),
      });
      const { tempFilePath } = await client.download({ url: `/files/${data.id}` });
      this.setData({ picture: tempFilePath, file: `${data.type}, ${data.size} bytes`, progress: 0, error: '' });
    } catch (error) {
      this.setData({ progress: 0 });
      this.failed(error);
    }
  },

  logout() {
    client.logout({ fail: (error) => this.failed(error) });
    this.setData({ who: '', number: '', picture: '', file: '' });
  },

  show(text) {
    const next = { key: `${Date.now()}-${Math.random()}`, text };
    this.setData({ messages: [next, ...this.data.messages].slice(0, kept) });
  },

  failed(error) {
    this.setData({ error: error.code ? `${error.code}: ${error.message}` : error.errMsg || String(error) });
  },
});
