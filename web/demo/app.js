const { createClient } = require('./lib/minigate.js');
const { baseUrl, devCode } = require('./config.js');

// Against the simulator any code of the form sim:NAME logs in as NAME.
const login = ({ success }) => success({ code: devCode, errMsg: 'login:ok' });
const api = devCode ? Object.create(wx, { login: { value: login } }) : wx;

App({
  client: createClient({ baseUrl, wx: api }),
});
