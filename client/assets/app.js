// Makes the pages live. Each of them works without it, but for the field for the card.
'use strict';

(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // --- In the visitor's language and clock -----------------------------------------------------------------------

  const language = navigator.languages;
  const times = new Intl.DateTimeFormat(language, { dateStyle: 'medium', timeStyle: 'medium' });

  const localize = (within) => {
    for (const price of all('data.price', within)) {
      const money = new Intl.NumberFormat(language, { style: 'currency', currency: price.dataset.currency });
      price.textContent = money.format(Number(price.value));
      price.lang = money.resolvedOptions().locale;
    }
    for (const time of all('time', within)) {
      time.textContent = times.format(new Date(time.dateTime));
      time.lang = times.resolvedOptions().locale;
    }
  };

  // --- Said aloud, and sparsely ----------------------------------------------------------------------------------

  const announce = (text) => {
    one('#announcer').textContent = text;
  };

  // --- Parts that change by themselves ---------------------------------------------------------------------------

  // Versions that count are told from older ones; the others only from different ones.
  const isNews = (fresh, shown) => {
    const [next, now] = [fresh.dataset.version, shown.dataset.version];
    const count = /^\d+$/;
    return count.test(next) && count.test(now) ? Number(next) > Number(now) : next !== now;
  };

  // Puts the element in the place of the one with its id, unless that shows this version already. Says whether there
  // is such a place.
  const replace = (fresh) => {
    const shown = document.getElementById(fresh.id);
    if (!shown || !isNews(fresh, shown)) {
      return shown !== null;
    }
    localize(fresh);
    const focused = shown.contains(document.activeElement) ? document.activeElement.id : null;
    shown.replaceWith(fresh);
    fresh.classList.add('changed');
    setTimeout(() => fresh.classList.remove('changed'), 2000);
    if (focused !== null) {
      const again = focused && document.getElementById(focused);
      (again || one('#main')).focus({ preventScroll: true });
    }
    if (fresh.dataset.announce) {
      announce(fresh.dataset.announce);
    }
    begin();
    return true;
  };

  const parse = (html) => {
    const template = document.createElement('template');
    template.innerHTML = html;
    return [...template.content.children];
  };

  // The list is not as it was: what came is not on it, or what is on it has gone.
  const tellNews = () => {
    const news = one('#news');
    if (news && news.hidden) {
      news.hidden = false;
      announce(news.textContent);
    }
  };

  // What was missed is on the page as it is now. Says whether the visitor may still see it.
  const refresh = async () => {
    try {
      const answer = await fetch(location.href, { headers: { accept: 'text/html' } });
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
      const [region, fresh] = [one('[data-live]'), one('[data-live]', page)];
      if (!fresh) {
        return answer.status >= 500;
      }
      if (all(':scope > [data-version]', region).some((part) => !page.getElementById(part.id))) {
        tellNews();
      }
      for (const part of all(':scope > [data-version]', fresh)) {
        replace(document.adoptNode(part));
      }
    } catch {
      // The next event, or the next try to connect, brings it.
    }
    return true;
  };

  // Follows the events of a region for as long as somebody looks: browsers allow a handful of connections in all.
  const follow = (region) => {
    let events = null;
    let again = null;
    let wait = 1000;
    let isFirst = true;

    const show = (event) => {
      const strangers = parse(event.data).filter((fresh) => !replace(fresh));
      if (strangers.some((fresh) => fresh.dataset.status === 'available')) {
        tellNews();
      }
    };
    const stop = () => {
      clearTimeout(again);
      if (events) {
        events.close();
      }
      events = null;
    };
    const start = () => {
      stop();
      events = new EventSource(region.dataset.live);
      events.addEventListener('ticket', show);
      events.addEventListener('order', show);
      // Not all who look at once.
      events.addEventListener('reload', () => setTimeout(refresh, Math.random() * 3000));
      events.addEventListener('open', () => {
        if (!isFirst) {
          refresh();
        }
        isFirst = false;
        wait = 1000;
      });
      // The browser connects again by itself, unless it was told no.
      events.addEventListener('error', async () => {
        if (!events || events.readyState !== EventSource.CLOSED) {
          return;
        }
        isFirst = false;
        if (await refresh()) {
          again = setTimeout(start, wait);
          wait = Math.min(2 * wait, 60000);
        } else {
          announce('This page has ended. Sign in again to see it.');
        }
      });
    };

    document.addEventListener('visibilitychange', () => (document.hidden ? stop() : start()));
    if (!document.hidden) {
      start();
    }
  };

  // --- Countdown -------------------------------------------------------------------------------------------------

  // The server's clock counts, however wrong the visitor's is: it was read when the answer began.
  const [navigation] = performance.getEntriesByType('navigation');
  const sinceAnswer = performance.now() - (navigation ? navigation.responseStart : 0);
  const ahead = Date.parse(document.body.dataset.now) + sinceAnswer - Date.now();
  const WARNINGS = [[120, 'Two minutes are left to pay.'], [20, '20 seconds are left to pay.']];

  let counting = null;
  // How many seconds were left when that was last said of this deadline.
  const before = new Map();
  const count = () => {
    clearInterval(counting);
    const countdown = one('.countdown');
    if (!countdown) {
      return;
    }
    const deadline = countdown.dataset.expires;
    const tick = () => {
      const left = Math.max(0, Math.ceil((Date.parse(deadline) - Date.now() - ahead) / 1000));
      const text = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, '0')}`;
      one('[data-left]', countdown).textContent = left > 0 ? ` ${text} left.` : ' Time is up.';
      countdown.classList.toggle('soon', left <= 120);
      const warning = WARNINGS.findLast(([at]) => left <= at && before.get(deadline) > at);
      if (warning && left > 0) {
        announce(warning[1]);
      }
      before.set(deadline, left);
      if (left === 0) {
        clearInterval(counting);
      }
    };
    counting = setInterval(tick, 1000);
    tick();
  };

  // --- Forms are sent once ---------------------------------------------------------------------------------------

  const busy = (form, isBusy) => {
    for (const button of all('button', form)) {
      // Not `disabled`: that would take the focus away.
      button.ariaDisabled = isBusy ? 'true' : null;
      button.ariaBusy = isBusy ? 'true' : null;
    }
    form.dataset.sent = isBusy ? 'yes' : '';
  };

  document.addEventListener('submit', (event) => {
    const form = event.target;
    if (form.method !== 'post') {
      return;
    }
    if (form.dataset.sent === 'yes') {
      event.preventDefault();
      return;
    }
    busy(form, true);
    if (form.dataset.stripeKey) {
      // What `payByCard` sends in the end comes by no button, and not this way again.
      event.preventDefault();
      payByCard(form);
    } else {
      // Who stopped the page from loading may try again.
      setTimeout(() => busy(form, false), 20000);
    }
  });

  // A page that the browser kept is as it was left.
  window.addEventListener('pageshow', (event) => {
    if (event.persisted) {
      all('form').forEach((form) => busy(form, false));
      refresh();
    }
  });

  // --- Cards, by Stripe ------------------------------------------------------------------------------------------

  const cards = new WeakMap();

  const cardError = (text) => {
    const error = one('#card-error');
    if (error) {
      error.textContent = text;
      error.hidden = !text;
    }
  };

  const mountCard = (form) => {
    if (cards.has(form) || !window.Stripe) {
      return;
    }
    const stripe = window.Stripe(form.dataset.stripeKey);
    const isDark = matchMedia('(prefers-color-scheme: dark)').matches;
    const elements = stripe.elements({
      mode: 'payment',
      amount: Number(form.dataset.amount),
      currency: form.dataset.currency,
      captureMethod: 'manual',
      paymentMethodCreation: 'manual',
      paymentMethodTypes: ['card'],
      appearance: { theme: isDark ? 'night' : 'stripe' },
    });
    elements.create('payment').mount('#payment-element');
    cards.set(form, { stripe, elements });
  };

  const payByCard = async (form) => {
    cardError('');
    try {
      if (!cards.has(form)) {
        throw new Error('The form for your card could not be loaded. Load the page again.');
      }
      const { stripe, elements } = cards.get(form);
      const { error: incomplete } = await elements.submit();
      const { error, paymentMethod } = incomplete
        ? { error: incomplete }
        : await stripe.createPaymentMethod({ elements });
      if (error) {
        throw error;
      }
      one('[name=token]', form).value = paymentMethod.id;
      form.submit();
    } catch (error) {
      cardError((error && error.message) || 'The card could not be read. Try again.');
      busy(form, false);
    }
  };

  const authenticate = async (button) => {
    cardError('');
    button.ariaDisabled = 'true';
    try {
      const stripe = window.Stripe(button.dataset.stripeKey);
      const { error } = await stripe.handleNextAction({ clientSecret: button.dataset.clientSecret });
      if (error) {
        throw error;
      }
    } catch (error) {
      cardError((error && error.message) || 'Your bank could not be asked. Try again.');
    }
    button.ariaDisabled = null;
    refresh();
  };

  document.addEventListener('click', (event) => {
    const button = event.target.closest('#authenticate');
    if (button && button.ariaDisabled !== 'true') {
      authenticate(button);
    }
  });

  // --- Whenever there is something new on the page ---------------------------------------------------------------

  const begin = () => {
    count();
    all('[data-script]').forEach((part) => { part.hidden = false; });
    all('form[data-stripe-key]').forEach(mountCard);
  };

  localize(document);
  begin();
  // Stripe's own script may come later than this one.
  window.addEventListener('load', begin);
  all('[data-live]').forEach(follow);
  const problems = one('#problems');
  if (problems) {
    problems.focus();
  }
})();
