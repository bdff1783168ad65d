"""Sign in and out: the login page, and the list of sessions that users ended before they expired."""

from __future__ import annotations

import asyncio
import html
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from string import Template
from urllib.parse import parse_qs, quote

from aiohttp import web

from bonseyes_dagster.errors import BadRequestError, MethodNotAllowedError, UnauthorizedError
from bonseyes_dagster.gateway.access import (
    SESSION_S,
    AccessRules,
    bearer_token,
    is_token,
    make_session,
    read_session,
    session_cookie,
)

__all__ = ["LOGIN", "LOGOUT", "Login"]

LOGIN = "/login"
LOGOUT = "/logout"
BODY_BYTES = 16_384
FORM_S = 10.0
WRONG_TOKEN_S = 1.0
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


class Login:
    """Checks the token and the sessions of requests. Without a token, every request is signed in."""

    def __init__(self, rules: AccessRules) -> None:
        self._rules = rules
        self._ended: dict[str, float] = {}
        # One wrong token at a time, one second for each; a right token never waits.
        self._wrong_token_lock = asyncio.Lock()
        self._page = Template((Path(__file__).parent / "login.html").read_text(encoding="utf-8"))

    def is_signed_in(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Tell whether a request carries the token or a session made from it."""
        if not self._rules.token or is_token(bearer_token(headers), self._rules):
            return True
        nonce = self._session(cookies)
        return nonce is not None and nonce not in self._ended

    async def sign_in(self, request: web.BaseRequest) -> web.Response:
        """Answer /login: return the page, or sign in with the form that the page sends."""
        if request.method in ("GET", "HEAD"):
            query = parse_qs(request.raw_path.partition("?")[2])
            return self._answer_page(_safe_redirect(query.get("next", [""])[0]))
        if request.method != "POST":
            raise MethodNotAllowedError("/login takes GET and POST.")
        form = await _form(request)
        target = _safe_redirect(form.get("next", ""))
        if not self._rules.token or is_token(form.get("token"), self._rules):
            return self._start_session(request, target)
        await self.slow_down()
        if "text/html" in request.headers.get("Accept", ""):
            return self._answer_page(target, wrong=True)
        raise UnauthorizedError("The token is wrong.")

    async def slow_down(self) -> None:
        """Delay the answer to a wrong token, against guessing."""
        async with self._wrong_token_lock:
            await asyncio.sleep(WRONG_TOKEN_S)

    def sign_out(self, cookies: Mapping[str, str]) -> web.Response:
        """Answer /logout: end the session, so that its cookie is no longer valid."""
        now_s = time.time()
        nonce = self._session(cookies)
        if nonce is not None:
            self._ended = {ended: until for ended, until in self._ended.items() if until > now_s}
            self._ended[nonce] = now_s + SESSION_S
        response = _redirect(LOGIN if self._rules.token else "/")
        response.del_cookie(session_cookie(self._rules), path="/", httponly=True, samesite="Strict")
        return response

    def _session(self, cookies: Mapping[str, str]) -> str | None:
        return read_session(cookies.get(session_cookie(self._rules)), self._rules, now_s=time.time())

    def _start_session(self, request: web.BaseRequest, target: str) -> web.Response:
        response = _redirect(target)
        if self._rules.token:
            response.set_cookie(
                session_cookie(self._rules),
                make_session(self._rules, now_s=time.time(), nonce=secrets.token_urlsafe(12)),
                max_age=SESSION_S,
                path="/",
                httponly=True,
                samesite="Strict",
                secure=request.headers.get("X-Forwarded-Proto", request.scheme) == "https" or None,
            )
        return response

    def _answer_page(self, target: str, *, wrong: bool = False) -> web.Response:
        message = '<p class="wrong" role="alert">The token is wrong.</p>' if wrong else ""
        return web.Response(
            status=401 if wrong else 200,
            text=self._page.substitute(next=html.escape(target), wrong=message),
            content_type="text/html",
            headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-store"},
        )


def sign_in_url(raw_path: str) -> str:
    """Return the URL of the login page, which leads back to `raw_path` after signing in."""
    return f"{LOGIN}?next={quote(raw_path, safe='/')}"


def _redirect(location: str) -> web.Response:
    return web.Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})


def _safe_redirect(target: str) -> str:
    """Return `target` if it is a path of this site, else `/`: a login must not redirect to another site."""
    # The path begins with one slash. It has no character that a browser reads as a slash or ignores.
    return target if re.fullmatch(r"/(?!/)[!-\[\]-~]*", target) else "/"


async def _form(request: web.BaseRequest) -> dict[str, str]:
    body = b""
    try:
        async with asyncio.timeout(FORM_S):
            while len(body) <= BODY_BYTES and (chunk := await request.content.readany()):
                body += chunk
    except TimeoutError:
        raise BadRequestError(f"The login form did not arrive within {FORM_S:g} s; send it again.") from None
    if len(body) > BODY_BYTES:
        raise BadRequestError(f"The login form is too large; the limit is {BODY_BYTES} bytes.")
    fields = parse_qs(body.decode(errors="replace"), keep_blank_values=True)
    return {name: values[0] for name, values in fields.items()}
